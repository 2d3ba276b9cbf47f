-- From where are features seen? One row per enrollment and day on which its
-- peers have a prediction point, so that percentiles are among all enrollments
-- open that day and not only among those with something due.

with

points as (

    select * from {{ ref('int_points_to_build') }}

),

enrollments as (

    select * from {{ ref('int_enrollments') }}

),

days as (

    select distinct
        peer_group_id,
        as_of_date
    from points

),

asked as (

    select distinct
        student_id,
        course_run_id,
        as_of_date
    from points

),

observations as (

    select
        enrollments.enrollment_number,
        enrollments.student_id,
        enrollments.course_id,
        enrollments.course_run_id,
        enrollments.peer_group_id,
        enrollments.activity_scope_id,
        enrollments.attempt_number,
        enrollments.began_at,
        cast(enrollments.began_at as date) as began_date,
        coalesce(enrollments.run_started_at, enrollments.began_at)
            as run_started_at,
        days.as_of_date,
        {{ add_days(
            'days.as_of_date', '-' ~ setting('observation_window_days')
        ) }} as window_start,
        asked.student_id is not null as is_asked,
        -- Who is compared with must not depend on which day is scored.
        case
            when
                enrollments.valid_to is null
                or enrollments.valid_to >= days.as_of_date
                then 1
            else 0
        end as is_open
    from days
    inner join enrollments
        on days.peer_group_id = enrollments.peer_group_id
    left join asked
        on
            enrollments.student_id = asked.student_id
            and enrollments.course_run_id = asked.course_run_id
            and days.as_of_date = asked.as_of_date
    where
        enrollments.began_at < days.as_of_date
        and (
            enrollments.withdrawn_at is null
            or enrollments.withdrawn_at >= days.as_of_date
        )
        and (
            enrollments.valid_to is null
            or enrollments.valid_to >= days.as_of_date
            or asked.student_id is not null
        )

)

select * from observations
