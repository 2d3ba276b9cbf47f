-- What is this? Points with a label that are not matured, and matured ones without.
--
-- When does it matter? Always: training reads at_risk, counts and reports read
-- label_status, and a postponed or unobserved sitting is neither passed nor failed.
--
-- How do I fix it? See the last step of student_targets.

with

contradictory as (

    select
        student_id,
        assessment_id,
        as_of_date,
        at_risk,
        label_status
    from {{ ref('student_targets') }}
    where
        (at_risk is not null and label_status <> 'matured')
        or (at_risk is null and label_status = 'matured')
        or at_risk not in (0, 1)
        or label_status not in (
            'matured', 'pending', 'postponed', 'unobserved'
        )

)

select * from contradictory
