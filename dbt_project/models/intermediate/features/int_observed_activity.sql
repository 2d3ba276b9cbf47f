-- Activity of the enrollments that are observed, by number instead of name.

with

enrollments as (

    select
        enrollment_number,
        student_id,
        course_run_id,
        peer_group_id,
        max(as_of_date) as last_observed_on
    from {{ ref('int_observations') }}
    group by
        enrollment_number,
        student_id,
        course_run_id,
        peer_group_id

),

activity as (

    select
        enrollments.enrollment_number,
        enrollments.peer_group_id,
        enrollments.last_observed_on,
        activity.*
    from {{ ref('int_enrollment_activity') }} as activity
    inner join enrollments
        on
            activity.student_id = enrollments.student_id
            and activity.course_run_id = enrollments.course_run_id

),

-- A day of which several reports arrive is studied from the first on that says so. In
-- windows of whole enrollments, so that the rows of one lie together: what adds them up
-- has each sum once then, where DuckDB would else write many parts of it to disk.
observed_activity as (

    select
        enrollment_number,
        peer_group_id,
        last_observed_on,
        activity_date,
        known_date,
        case
            when
                max(case when study_facts > 0 then activity_date end) over (
                    partition by enrollment_number
                    order by activity_date, known_date
                    rows between unbounded preceding and 1 preceding
                ) = activity_date
                then 0
            when study_facts > 0 then 1
            else 0
        end as is_new_study_day,
        study_facts,
        events,
        quantity,
        sessions,
        minutes,
        lessons_started,
        lessons_finished,
        progress_gained,
        quiz_answers,
        quiz_judged,
        quiz_correct,
        first_attempt_judged,
        first_attempt_correct,
        items,
        activity_kinds,
        timed_facts,
        evening_facts
    from activity

)

select * from observed_activity
