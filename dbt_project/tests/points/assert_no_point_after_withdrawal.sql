-- What is this? Prediction points of a student who had withdrawn before the start of
-- as_of_date.
--
-- When does it matter? Always: whoever has left fails for certain, which makes every
-- figure look better than it is, and flags somebody nobody can help.
--
-- How do I fix it? See withdrawn_at in int_enrollments and `open_questions` in
-- int_prediction_points: still there means withdrawn_at >= as_of_date, or never.

with

misplaced as (

    select
        points.student_id,
        points.course_run_id,
        points.assessment_id,
        points.as_of_date,
        enrollments.withdrawn_at
    from {{ ref('student_targets') }} as points
    inner join {{ ref('int_enrollments') }} as enrollments
        on
            points.student_id = enrollments.student_id
            and points.course_run_id = enrollments.course_run_id
    where enrollments.withdrawn_at < points.as_of_date

)

select * from misplaced
