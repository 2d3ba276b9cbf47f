with

enrollments as (

    select * from {{ canonical('enrollments') }}

),

numbered as (

    select
        student_id,
        course_id,
        course_run_id,
        peer_group_id,
        activity_scope_id,
        run_started_at,
        began_at,
        valid_to,
        withdrawn_at,
        earlier_attempts,
        row_number() over (
            partition by student_id, course_id
            order by began_at, course_run_id
        ) as attempt_here,
        lead(began_at) over (
            partition by student_id, course_id
            order by began_at, course_run_id
        ) as next_began_at
    from enrollments

),

with_attempts as (

    select
        student_id,
        course_id,
        course_run_id,
        peer_group_id,
        activity_scope_id,
        run_started_at,
        began_at,
        valid_to,
        withdrawn_at,
        next_began_at,
        -- A source may know of attempts from before its data begins.
        cast(greatest(
            attempt_here, coalesce(earlier_attempts, 0) + 1
        ) as {{ dbt.type_int() }}) as attempt_number,
        -- A number is faster to join and to group by than two texts.
        row_number() over (order by student_id, course_run_id)
            as enrollment_number
    from numbered

)

select * from with_attempts
