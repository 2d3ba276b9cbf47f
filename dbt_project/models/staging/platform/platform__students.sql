with

students as (

    select
        student_id,
        registered_at
    from {{ ref('stg_platform__students') }}
    where rejected_because is null

)

select * from students
