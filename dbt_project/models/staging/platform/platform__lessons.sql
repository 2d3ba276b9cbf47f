with

lessons as (

    select
        lesson_id,
        course_id,
        cast(null as {{ dbt.type_string() }}) as course_run_id,
        topic
    from {{ ref('stg_platform__lessons') }}
    where rejected_because is null

)

select * from lessons
