with

assessments as (

    select
        assessment_id,
        course_id,
        cast(null as {{ dbt.type_string() }}) as course_run_id,
        coalesce(title, assessment_id) as title,
        kind,
        due_at,
        weight,
        pass_mark
    from {{ ref('stg_platform__assessments') }}
    where rejected_because is null

)

select * from assessments
