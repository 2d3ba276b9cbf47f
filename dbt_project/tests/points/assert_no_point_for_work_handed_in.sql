-- What is this? Prediction points for an assessment that the student had handed in
-- before the start of as_of_date, within the same enrollment.
--
-- When does it matter? Always: the outcome is known, and a model would be praised for
-- telling it. Compared with the results themselves, not with int_sittings, so that
-- a sitting that loses its result shows here.
--
-- How do I fix it? See `attempts` in int_sittings, and submitted_at in
-- int_prediction_points: not handed in means submitted_at >= as_of_date, or never.

with

misplaced as (

    select
        points.student_id,
        points.course_run_id,
        points.assessment_id,
        points.as_of_date,
        results.submitted_at
    from {{ ref('student_targets') }} as points
    inner join {{ ref('int_enrollments') }} as enrollments
        on
            points.student_id = enrollments.student_id
            and points.course_run_id = enrollments.course_run_id
    inner join {{ canonical('results') }} as results
        on
            points.student_id = results.student_id
            and points.assessment_id = results.assessment_id
    where
        -- What is older may be an earlier attempt at the course.
        results.submitted_at >= enrollments.began_at
        and results.submitted_at < points.as_of_date

)

select * from misplaced
