-- Each event with what is wrong with it by itself; model
-- stg_platform__activity_events adds what only shows beside the others.

with

source as (

    select * from {{ raw_table('platform', 'activity_events') }} as raw

),

students as (

    select student_id from {{ ref('stg_platform__students') }}
    where rejected_because is null

),

courses as (

    select course_id from {{ ref('stg_platform__courses') }}
    where rejected_because is null

),

parsed as (

    select
        {{ blank_to_null('event_id') }} as event_id,
        {{ blank_to_null('student_id') }} as student_id,
        {{ blank_to_null('course_id') }} as course_id,
        {{ blank_to_null('event_type') }} as event_type,
        {{ blank_to_null('item_id') }} as item_id,
        quantity as raw_quantity,
        {{ parse_number('quantity') }} as quantity,
        {{ parse_timestamp('occurred_at') }} as occurred_at,
        loaded_at as raw_loaded_at,
        {{ parse_timestamp('loaded_at') }} as loaded_at
    from source

),

matched as (

    select
        parsed.*,
        students.student_id as known_student_id,
        courses.course_id as known_course_id
    from parsed
    left join students on parsed.student_id = students.student_id
    left join courses on parsed.course_id = courses.course_id

),

checked_events as (

    select
        event_id,
        student_id,
        course_id,
        event_type,
        item_id,
        quantity,
        occurred_at,
        loaded_at,
        case
            {{ reject_missing(['student_id', 'event_type']) }}
            when known_student_id is null then 'student_id is unknown'
            when course_id is not null and known_course_id is null
                then 'course_id is unknown'
            {{ reject_bad_time('occurred_at') }}
            -- Otherwise a late event would count as known at once.
            {{ reject_bad_optional_time('loaded_at') }}
            -- The upper bound keeps sums exact.
            {{ reject_bad_number('quantity', 0, 1000000000000) }}
        end as rejected_because
    from matched

)

select * from checked_events
