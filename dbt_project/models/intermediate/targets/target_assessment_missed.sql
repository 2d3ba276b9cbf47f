-- Missed: not handed in by the due time plus grace.

with

points as (

    select * from {{ ref('int_prediction_points') }}

),

with_deadline as (

    select
        *,
        {{ dbt.dateadd(
            'day', var('grace_days'), 'outcome_due_at'
        ) }} as accepted_until,
        {{ dbt.dateadd(
            'day',
            var('grace_days') + var('grading_delay_days'),
            'case when outcome_due_at < due_at then due_at else outcome_due_at end'
        ) }} as label_known_at
    from points

),

labelled as (

    select
        student_id,
        course_id,
        assessment_id,
        as_of_date,
        label_known_at,
        case
            when submitted_at <= accepted_until then 0
            else 1
        end as outcome,
        -- Nobody has handed this in by then: perhaps it is not recorded at all.
        case
            when first_result_at < label_known_at then 'matured'
            else 'unobserved'
        end as status_once_known
    from with_deadline

)

select * from labelled
