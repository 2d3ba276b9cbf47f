-- What an observation may see of its enrollment's activity: one row per
-- observation and active day before as_of_date that was known by then.

with

observations as (

    select * from {{ ref('int_observations') }}

),

activity as (

    select * from {{ ref('int_enrollment_activity') }}

),

observed as (

    select
        observations.student_id,
        observations.course_run_id,
        observations.as_of_date,
        activity.activity_date,
        max(case
            when activity.activity_date >= observations.window_start then 1
            else 0
        end) as is_in_window,
        sum(activity.study_facts) as study_facts,
        sum(activity.events) as events,
        sum(activity.quantity) as quantity,
        sum(activity.sessions) as sessions,
        sum(activity.minutes) as minutes,
        sum(activity.lessons_started) as lessons_started,
        sum(activity.lessons_finished) as lessons_finished,
        sum(activity.progress_gained) as progress_gained,
        sum(activity.quiz_answers) as quiz_answers,
        sum(activity.quiz_judged) as quiz_judged,
        sum(activity.quiz_correct) as quiz_correct,
        sum(activity.first_attempt_judged) as first_attempt_judged,
        sum(activity.first_attempt_correct) as first_attempt_correct,
        sum(activity.items) as items,
        sum(activity.activity_kinds) as activity_kinds,
        sum(activity.timed_facts) as timed_facts,
        sum(activity.evening_facts) as evening_facts
    from observations
    inner join activity
        on
            observations.student_id = activity.student_id
            and observations.course_run_id = activity.course_run_id
    where
        activity.activity_date < observations.as_of_date
        and activity.known_date < observations.as_of_date
    group by
        observations.student_id,
        observations.course_run_id,
        observations.as_of_date,
        activity.activity_date

)

select * from observed
