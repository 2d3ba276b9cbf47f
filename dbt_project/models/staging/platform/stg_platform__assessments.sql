{{ config(materialized='table') }}

with

source as (

    select * from {{ raw_table('platform', 'assessments') }} as raw

),

courses as (

    select course_id from {{ ref('stg_platform__courses') }}
    where rejected_because is null

),

parsed as (

    select
        {{ blank_to_null('assessment_id') }} as assessment_id,
        {{ blank_to_null('course_id') }} as course_id,
        {{ blank_to_null('title') }} as title,
        {{ lower_case(blank_to_null('kind')) }} as kind,
        due_at as raw_due_at,
        {{ parse_timestamp('due_at') }} as due_at,
        weight as raw_weight,
        {{ parse_number('weight') }} as weight,
        pass_mark as raw_pass_mark,
        {{ parse_number('pass_mark') }} as pass_mark
    from source

),

matched as (

    select
        parsed.*,
        courses.course_id as known_course_id
    from parsed
    left join courses on parsed.course_id = courses.course_id

),

checked as (

    select
        *,
        case
            {{ reject_missing(['assessment_id', 'course_id', 'kind']) }}
            when known_course_id is null then 'course_id is unknown'
            when kind not in ('exam', 'assignment', 'quiz')
                then 'kind is unknown'
            -- Otherwise a damaged due time would make it a self-paced one.
            {{ reject_bad_optional_time('due_at', may_be_future=true) }}
            {{ reject_bad_number('weight', 0, 1000000) }}
            {{ reject_bad_number('pass_mark', 0, 1000000) }}
        end as rejected_because
    from matched

),

-- Versions of an assessment share an id, and belong to one course: that of the
-- first version. Results and bookings name the id only.
with_owner as (

    select
        *,
        first_value(course_id) over (
            partition by assessment_id, rejected_because
            order by due_at nulls last, course_id
        ) as owning_course_id
    from checked

),

numbered as (

    select
        *,
        row_number() over (
            partition by assessment_id, course_id, due_at, rejected_because
            order by
                kind,
                weight nulls last,
                pass_mark nulls last,
                title nulls last
        ) as copy_number
    from with_owner

),

assessments as (

    select
        assessment_id,
        course_id,
        title,
        kind,
        due_at,
        weight,
        pass_mark,
        case
            when rejected_because is not null then rejected_because
            when course_id <> owning_course_id
                then 'assessment_id belongs to another course'
            when copy_number > 1 then 'assessment_id and due_at are repeated'
        end as rejected_because
    from numbered

)

select * from assessments
