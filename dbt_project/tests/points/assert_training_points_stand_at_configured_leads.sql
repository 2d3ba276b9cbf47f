-- What is this? Training points at a lead that prediction_leads does not name, open
-- sittings that were not sat on the day, and points that are neither for training
-- nor for scoring.
--
-- When does it matter? Reports keep the leads apart; a lead that nobody asked for
-- falls between them, and moves every pooled figure.
--
-- How do I fix it? See training_candidates and once_per_lead in
-- int_prediction_points: is_training_point comes from them alone.

with

misplaced as (

    select
        points.student_id,
        points.course_run_id,
        points.assessment_id,
        points.as_of_date,
        points.lead_days,
        points.is_training_point,
        points.is_scoring_point
    from {{ ref('int_prediction_points') }} as points
    where
        (not points.is_training_point and not points.is_scoring_point)
        or (
            points.is_training_point
            and points.due_at is not null
            and points.lead_days not in (
                {{ setting('prediction_leads') | join(', ') }}
            )
        )
        or (
            points.is_training_point
            and points.due_at is null
            and coalesce(
                cast(points.submitted_at as date) <> points.as_of_date, true
            )
        )

)

select * from misplaced
