-- Daily activity given to the enrollment it belongs to: by run where the source
-- says so, else by time; what is platform-wide counts for each open enrollment.

with

daily as (

    select * from {{ ref('int_daily_activity') }}

),

enrollments as (

    select
        *,
        cast(began_at as date) as began_date,
        cast(next_began_at as date) as next_began_date
    from {{ ref('int_enrollments') }}

),

enrollment_activity as (

    select
        enrollments.student_id,
        enrollments.course_run_id,
        daily.activity_date,
        daily.known_date,
        sum(daily.facts - daily.sessions) as study_facts,
        sum(daily.events) as events,
        sum(daily.quantity) as quantity,
        sum(daily.sessions) as sessions,
        sum(daily.minutes) as minutes,
        sum(daily.lessons_started) as lessons_started,
        sum(daily.lessons_finished) as lessons_finished,
        sum(daily.progress_gained) as progress_gained,
        sum(daily.quiz_answers) as quiz_answers,
        sum(daily.quiz_judged) as quiz_judged,
        sum(daily.quiz_correct) as quiz_correct,
        sum(daily.first_attempt_judged) as first_attempt_judged,
        sum(daily.first_attempt_correct) as first_attempt_correct,
        sum(daily.items) as items,
        sum(daily.activity_kinds) as activity_kinds,
        sum(daily.timed_facts) as timed_facts,
        sum(daily.evening_facts) as evening_facts
    from daily
    inner join enrollments
        on
            daily.student_id = enrollments.student_id
            and coalesce(daily.course_id, enrollments.course_id)
            = enrollments.course_id
            and coalesce(daily.course_run_id, enrollments.course_run_id)
            = enrollments.course_run_id
    where
        daily.activity_date >= enrollments.began_date
        and (
            -- Runs may overlap where the source tells them apart.
            daily.course_run_id is not null
            or enrollments.next_began_date is null
            or daily.activity_date < enrollments.next_began_date
        )
    group by
        enrollments.student_id,
        enrollments.course_run_id,
        daily.activity_date,
        daily.known_date

)

select * from enrollment_activity
