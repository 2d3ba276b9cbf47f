-- What is this? Sittings whose training points, asked at different leads, have
-- different answers.
--
-- When does it matter? Whether a student fails does not depend on when one asks. An
-- answer that differs was judged by different due times, or by different results.
--
-- How do I fix it? See the model of the target definition: the outcome is judged by
-- outcome_due_at, which is the same for all points of a sitting.

with

ambiguous as (

    select
        student_id,
        course_run_id,
        assessment_id,
        min(at_risk) as lowest,
        max(at_risk) as highest
    from {{ ref('student_targets') }}
    where is_training_point
    group by
        student_id,
        course_run_id,
        assessment_id
    having min(at_risk) <> max(at_risk)

)

select * from ambiguous
