-- What is this? Prediction points that have no row in student_targets or several, and
-- rows of student_targets without a point.
--
-- When does it matter? Always: a student who is lost here is neither trained on nor
-- scored, and nothing else says so.
--
-- How do I fix it? See the joins of student_targets and of the model of the target
-- definition: each has to keep one row per point.

{{ test_same_rows_as(
    ref('student_targets'),
    ref('int_prediction_points'),
    ['student_id', 'course_id', 'assessment_id', 'as_of_date'],
) }}
