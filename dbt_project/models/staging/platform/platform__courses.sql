with

courses as (

    select
        course_id,
        coalesce(title, course_id) as title,
        category,
        duration_minutes
    from {{ ref('stg_platform__courses') }}
    where rejected_because is null

)

select * from courses
