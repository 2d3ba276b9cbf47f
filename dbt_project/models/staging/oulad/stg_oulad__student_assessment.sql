{{ config(materialized='table') }}

with

source as (

    select * from {{ raw_table('oulad', 'studentAssessment') }} as file_rows

),

assessments as (

    select * from {{ ref('stg_oulad__assessments') }}
    where rejected_because is null

),

registrations as (

    select * from {{ ref('stg_oulad__student_registration') }}
    where rejected_because is null

),

parsed as (

    select
        {{ blank_to_null('id_assessment') }} as id_assessment,
        {{ blank_to_null('id_student') }} as id_student,
        date_submitted as raw_date_submitted,
        {{ parse_integer('date_submitted') }} as date_submitted,
        {{ parse_boolean('is_banked') }} as is_banked,
        score as raw_score,
        {{ parse_number('score') }} as score
    from source

),

matched as (

    select
        parsed.*,
        assessments.course_run_id,
        assessments.run_started_at,
        registrations.id_student as registered_student
    from parsed
    left join assessments
        on parsed.id_assessment = assessments.id_assessment
    left join registrations
        on
            parsed.id_student = registrations.id_student
            and assessments.course_run_id = registrations.course_run_id

),

checked as (

    select
        *,
        case
            {{ reject_missing(['id_assessment', 'id_student']) }}
            when course_run_id is null
                then 'no such assessment in assessments'
            when registered_student is null
                then 'no registration of the student in the presentation'
            {{ reject_bad_oulad_day('date_submitted') }}
            {{ reject_missing(['date_submitted']) }}
            when is_banked is null then 'is_banked is neither 0 nor 1'
            {{ reject_bad_number('score', 0, 100) }}
        end as rejected_because
    from matched

),

numbered as (

    select
        *,
        row_number() over (
            partition by id_assessment, id_student, rejected_because
            order by date_submitted, score nulls last, is_banked
        ) as copy_number
    from checked

),

student_assessment as (

    select
        id_assessment,
        id_student,
        course_run_id,
        case
            when rejected_because is null
                then {{ oulad_day_start('date_submitted') }}
        end as submitted_at,
        is_banked,
        score,
        case
            when rejected_because is null and copy_number > 1
                then 'id_assessment and id_student are repeated'
            else rejected_because
        end as rejected_because
    from numbered

)

select * from student_assessment
