{{ config(materialized='table') }}

with

source as (

    select * from {{ raw_table('platform', 'assessment_results') }} as raw

),

students as (

    select student_id from {{ ref('stg_platform__students') }}
    where rejected_because is null

),

assessments as (

    select distinct assessment_id from {{ ref('stg_platform__assessments') }}
    where rejected_because is null

),

parsed as (

    select
        {{ blank_to_null('result_id') }} as result_id,
        {{ blank_to_null('student_id') }} as student_id,
        {{ blank_to_null('assessment_id') }} as assessment_id,
        {{ parse_timestamp('submitted_at') }} as submitted_at,
        graded_at as raw_graded_at,
        {{ parse_timestamp('graded_at') }} as graded_at,
        score as raw_score,
        {{ parse_number('score') }} as score,
        passed as raw_passed,
        {{ parse_boolean('passed') }} as passed
    from source

),

matched as (

    select
        parsed.*,
        students.student_id as known_student_id,
        assessments.assessment_id as known_assessment_id
    from parsed
    left join students on parsed.student_id = students.student_id
    left join assessments
        on parsed.assessment_id = assessments.assessment_id

),

checked as (

    select
        *,
        case
            {{ reject_missing(['result_id', 'student_id', 'assessment_id']) }}
            when known_student_id is null then 'student_id is unknown'
            when known_assessment_id is null then 'assessment_id is unknown'
            {{ reject_bad_time('submitted_at') }}
            {{ reject_bad_optional_time('graded_at') }}
            -- By day, because grades often carry a date without a time.
            when
                cast(graded_at as date) < cast(submitted_at as date)
                then 'graded_at is before submitted_at'
            {{ reject_bad_number('score', 0, 1000000) }}
            when {{ is_unparsed('passed') }} then 'passed is not true or false'
        end as rejected_because
    from matched

),

-- The earliest row of an id stays: a row that is added later changes nothing.
numbered as (

    select
        *,
        row_number() over (
            partition by result_id, rejected_because
            order by
                submitted_at,
                graded_at nulls last,
                student_id,
                assessment_id,
                score nulls last,
                passed nulls last
        ) as copy_number
    from checked

),

assessment_results as (

    select
        result_id,
        student_id,
        assessment_id,
        submitted_at,
        graded_at,
        score,
        passed,
        case
            when rejected_because is null and copy_number > 1
                then 'result_id is repeated'
            else rejected_because
        end as rejected_because
    from numbered

)

select * from assessment_results
