-- What is this? Prediction points of a student who had not enrolled before the start
-- of as_of_date.
--
-- When does it matter? Always: such a row asks what somebody did before having
-- bought the course, and a model learns that the answer is nothing.
--
-- How do I fix it? See began_at in int_enrollments and `known` in
-- int_prediction_points: enrolled means began_at < as_of_date.

with

misplaced as (

    select
        points.student_id,
        points.course_run_id,
        points.assessment_id,
        points.as_of_date,
        enrollments.began_at
    from {{ ref('student_targets') }} as points
    left join {{ ref('int_enrollments') }} as enrollments
        on
            points.student_id = enrollments.student_id
            and points.course_run_id = enrollments.course_run_id
    where
        enrollments.began_at is null
        or enrollments.began_at >= points.as_of_date

)

select * from misplaced
