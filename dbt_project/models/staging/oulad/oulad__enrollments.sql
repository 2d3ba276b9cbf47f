with

enrollments as (

    select
        id_student as student_id,
        code_module as course_id,
        course_run_id,
        course_run_id as peer_group_id,
        course_run_id as activity_scope_id,
        run_started_at,
        registered_at as began_at,
        run_ended_at as valid_to,
        unregistered_at as withdrawn_at,
        num_of_prev_attempts as earlier_attempts
    from {{ ref('stg_oulad__student_registration') }}
    where rejected_because is null

)

select * from enrollments
