with

student_info as (

    select distinct id_student
    from {{ ref('stg_oulad__student_info') }}
    where rejected_because is null

),

registrations as (

    select
        id_student,
        min(registered_at) as registered_at
    from {{ ref('stg_oulad__student_registration') }}
    where rejected_because is null
    group by id_student

),

students as (

    select
        student_info.id_student as student_id,
        registrations.registered_at
    from student_info
    left join registrations
        on student_info.id_student = registrations.id_student

)

select * from students
