{{ config(materialized='table') }}

with

source as (

    select * from {{ raw_table('oulad', 'assessments') }} as file_rows

),

runs as (

    select * from {{ ref('stg_oulad__courses') }}
    where rejected_because is null

),

parsed as (

    select
        {{ blank_to_null('code_module') }} as code_module,
        {{ blank_to_null('code_presentation') }} as code_presentation,
        {{ blank_to_null('id_assessment') }} as id_assessment,
        {{ blank_to_null('assessment_type') }} as assessment_type,
        date as raw_due_day,
        {{ parse_integer('date') }} as due_day,
        weight as raw_weight,
        {{ parse_number('weight') }} as weight
    from source

),

matched as (

    select
        parsed.*,
        runs.course_run_id,
        runs.run_started_at,
        runs.run_ended_at,
        case parsed.assessment_type
            when 'TMA' then 'assignment'
            when 'CMA' then 'quiz'
            when 'Exam' then 'exam'
        end as kind
    from parsed
    left join runs
        on
            parsed.code_module = runs.code_module
            and parsed.code_presentation = runs.code_presentation

),

checked as (

    select
        *,
        case
            {{ reject_missing(['id_assessment']) }}
            when course_run_id is null then 'no such presentation in courses'
            when kind is null then 'assessment_type is not TMA, CMA or Exam'
            {{ reject_bad_oulad_day('due_day') }}
            {{ reject_bad_number('weight', 0, 100) }}
        end as rejected_because
    from matched

),

numbered as (

    select
        *,
        row_number() over (
            partition by id_assessment, rejected_because
            order by
                course_run_id,
                assessment_type,
                due_day nulls last,
                weight nulls last
        ) as copy_number
    from checked

),

assessments as (

    select
        code_module,
        code_presentation,
        id_assessment,
        course_run_id,
        run_started_at,
        assessment_type,
        kind,
        case
            when rejected_because is not null then null
            -- Most exams have no day: they are sat at the end.
            when due_day is null then run_ended_at
            else {{ oulad_day_start('due_day') }}
        end as due_at,
        weight,
        case
            when rejected_because is null and copy_number > 1
                then 'id_assessment is repeated'
            else rejected_because
        end as rejected_because
    from numbered

)

select * from assessments
