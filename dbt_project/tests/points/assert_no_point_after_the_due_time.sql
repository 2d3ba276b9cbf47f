-- What is this? Prediction points that stand after the day on which the student is
-- due, or whose lead is not the number of days until then.
--
-- When does it matter? Always: the question has been answered by then.
--
-- How do I fix it? See the candidates and lead_days in int_prediction_points; an open
-- sitting has neither due time nor lead.

with

misplaced as (

    select
        student_id,
        course_run_id,
        assessment_id,
        as_of_date,
        due_at,
        lead_days
    from {{ ref('student_targets') }}
    where
        lead_days < 0
        or (due_at is null and lead_days <> 0)
        or {{ add_days('as_of_date', 'lead_days') }} <> cast(due_at as date)

)

select * from misplaced
