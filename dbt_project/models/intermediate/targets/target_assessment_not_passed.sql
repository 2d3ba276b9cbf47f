-- Not passed: not handed in by the due time plus grace, or first attempt not
-- passed. What was handed in but not graded when the label matures has no label.

with

points as (

    select * from {{ ref('int_prediction_points') }}

),

-- A self-paced assessment is due when it is sat; what is booked after that is a
-- resit.
with_outcome_due as (

    select
        *,
        case
            when due_at is null then coalesce(submitted_at, outcome_due_at)
            else outcome_due_at
        end as outcome_at
    from points

),

with_deadline as (

    select
        *,
        {{ dbt.dateadd(
            'day', var('grace_days'), 'outcome_at'
        ) }} as accepted_until,
        {{ dbt.dateadd(
            'day',
            var('grace_days') + var('grading_delay_days'),
            'case when outcome_at < due_at then due_at else outcome_at end'
        ) }} as label_known_at
    from with_outcome_due

),

labelled as (

    select
        student_id,
        course_id,
        assessment_id,
        as_of_date,
        label_known_at,
        case
            when submitted_at is null or submitted_at > accepted_until then 1
            when passed then 0
            else 1
        end as outcome,
        case
            when first_result_at is null then 'unobserved'
            when first_result_at >= label_known_at then 'unobserved'
            when submitted_at is null or submitted_at > accepted_until
                then 'matured'
            when passed is null or graded_at >= label_known_at
                then 'unobserved'
            else 'matured'
        end as status_once_known
    from with_deadline

)

select * from labelled
