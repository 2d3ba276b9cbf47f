-- What is this? Points with a label though the period in which it is decided is not
-- over in the data, or with a period that ends before the question was asked.
--
-- When does it matter? Always: students who have failed are known earlier than those
-- who have not, so that the newest labels would nearly all be failures.
--
-- How do I fix it? See label_status in student_targets and label_known_at in the
-- model of the target definition.

with

unfinished as (

    select
        targets.student_id,
        targets.assessment_id,
        targets.as_of_date,
        targets.at_risk,
        targets.label_known_at,
        calendar.data_until
    from {{ ref('student_targets') }} as targets
    cross join {{ ref('int_calendar') }} as calendar
    where
        targets.label_known_at <= targets.as_of_date
        or (
            targets.at_risk is not null
            and coalesce(
                targets.label_known_at > calendar.data_until, true
            )
        )

)

select * from unfinished
