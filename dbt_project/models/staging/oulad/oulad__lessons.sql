with

lessons as (

    select
        id_site as lesson_id,
        code_module as course_id,
        course_run_id,
        activity_type as topic
    from {{ ref('stg_oulad__vle') }}
    where rejected_because is null

)

select * from lessons
