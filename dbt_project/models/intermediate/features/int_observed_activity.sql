-- Activity of the enrollments that are observed, by number instead of name.

with

enrollments as (

    select distinct
        enrollment_number,
        student_id,
        course_run_id,
        peer_group_id
    from {{ ref('int_observations') }}

),

activity as (

    select
        enrollments.enrollment_number,
        enrollments.peer_group_id,
        activity.*
    from {{ ref('int_enrollment_activity') }} as activity
    inner join enrollments
        on
            activity.student_id = enrollments.student_id
            and activity.course_run_id = enrollments.course_run_id

),

-- A day of which several reports arrive is studied from the first on that says so.
observed_activity as (

    select
        enrollment_number,
        peer_group_id,
        activity_date,
        known_date,
        case
            when
                study_facts > 0
                and row_number() over (
                    partition by enrollment_number, activity_date
                    order by
                        case when study_facts > 0 then 0 else 1 end,
                        known_date
                ) = 1
                then 1
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
