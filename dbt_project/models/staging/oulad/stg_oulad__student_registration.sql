{{ config(materialized='table') }}

with

source as (

    select * from {{ raw_table('oulad', 'studentRegistration') }} as file_rows

),

runs as (

    select * from {{ ref('stg_oulad__courses') }}
    where rejected_because is null

),

students as (

    select * from {{ ref('stg_oulad__student_info') }}
    where rejected_because is null

),

parsed as (

    select
        {{ blank_to_null('code_module') }} as code_module,
        {{ blank_to_null('code_presentation') }} as code_presentation,
        {{ blank_to_null('id_student') }} as id_student,
        date_registration as raw_date_registration,
        {{ parse_integer('date_registration') }} as date_registration,
        date_unregistration as raw_date_unregistration,
        {{ parse_integer('date_unregistration') }} as date_unregistration
    from source

),

matched as (

    select
        parsed.*,
        runs.course_run_id,
        runs.run_started_at,
        runs.run_ended_at,
        students.num_of_prev_attempts,
        students.id_student as known_student
    from parsed
    left join runs
        on
            parsed.code_module = runs.code_module
            and parsed.code_presentation = runs.code_presentation
    left join students
        on
            parsed.id_student = students.id_student
            and runs.course_run_id = students.course_run_id

),

checked as (

    select
        *,
        case
            {{ reject_missing(['id_student']) }}
            when course_run_id is null then 'no such presentation in courses'
            when known_student is null then 'no such student in studentInfo'
            {{ reject_bad_oulad_day('date_registration') }}
            {{ reject_missing(['date_registration']) }}
            {{ reject_bad_oulad_day('date_unregistration') }}
        end as rejected_because
    from matched

),

numbered as (

    select
        *,
        row_number() over (
            partition by id_student, course_run_id, rejected_because
            order by date_registration, date_unregistration nulls last
        ) as copy_number
    from checked

),

student_registration as (

    select
        code_module,
        code_presentation,
        id_student,
        course_run_id,
        run_started_at,
        run_ended_at,
        case
            when rejected_because is null
                then {{ oulad_day_start('date_registration') }}
        end as registered_at,
        case
            when rejected_because is null
                then {{ oulad_day_start('date_unregistration') }}
        end as unregistered_at,
        num_of_prev_attempts,
        case
            when rejected_because is null and copy_number > 1
                then 'id_student is repeated in the presentation'
            else rejected_because
        end as rejected_because
    from numbered

)

select * from student_registration
