-- What is this? Sittings with more than one training point at the same lead: one was
-- asked again after it had been booked anew, or belongs to two enrollments at once.
--
-- When does it matter? Always: such a student counts twice in training and in every
-- figure.
--
-- How do I fix it? See `once_per_lead` in int_prediction_points.

with

repeated as (

    select
        student_id,
        course_run_id,
        assessment_id,
        lead_days,
        count(*) as points
    from {{ ref('student_targets') }}
    where is_training_point
    group by
        student_id,
        course_run_id,
        assessment_id,
        lead_days
    having count(*) > 1

)

select * from repeated
