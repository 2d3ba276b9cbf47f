{{ config(materialized='table') }}

-- Which courses does a subscription to all courses give? Those that the student
-- touches under it. A fact counts when it was known, if it happened within the
-- unbroken run of such subscriptions. Activity is taken from its days: where a
-- subscription begins between two facts of one day, the touch is its first instant.

with

spells as (

    select * from {{ ref('stg_platform__spells') }}
    where course_id is null

),

assessment_courses as (

    select distinct
        assessment_id,
        course_id
    from {{ ref('platform__assessments') }}

),

facts as (

    select
        student_id,
        course_id,
        last_occurred_at,
        first_known_at,
        last_known_at
    from {{ ref('int_daily_activity') }}
    where course_id is not null

    union all

    select
        bookings.student_id,
        assessment_courses.course_id,
        bookings.booked_at as last_occurred_at,
        bookings.booked_at as first_known_at,
        bookings.booked_at as last_known_at
    from {{ ref('platform__bookings') }} as bookings
    inner join assessment_courses
        on bookings.assessment_id = assessment_courses.assessment_id

    union all

    select
        results.student_id,
        assessment_courses.course_id,
        results.submitted_at as last_occurred_at,
        results.submitted_at as first_known_at,
        results.submitted_at as last_known_at
    from {{ ref('platform__results') }} as results
    inner join assessment_courses
        on results.assessment_id = assessment_courses.assessment_id

),

course_touches as (

    select
        spells.subscription_id,
        spells.student_id,
        facts.course_id,
        spells.run_started_at,
        min(greatest(facts.first_known_at, spells.started_at)) as touched_at
    from facts
    inner join spells
        on
            facts.student_id = spells.student_id
            and facts.last_occurred_at >= spells.run_started_at
            and facts.last_known_at >= spells.started_at
            and facts.first_known_at < spells.ended_at
    group by
        spells.subscription_id,
        spells.student_id,
        facts.course_id,
        spells.run_started_at

)

select * from course_touches
