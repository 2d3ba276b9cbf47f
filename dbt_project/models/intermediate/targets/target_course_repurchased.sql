-- Repurchased: after the first attempt's sitting the student buys the same
-- course again within the horizon. The proxy for a failed exam where grades are
-- not to be had.

with

points as (

    select * from {{ ref('int_prediction_points') }}

),

purchases as (

    select * from {{ canonical('purchases') }}

),

activity as (

    select * from {{ ref('int_enrollment_activity') }}

),

coverage as (

    select * from {{ ref('int_activity_coverage') }}

),

with_sitting as (

    select
        *,
        case
            when due_at is null then coalesce(submitted_at, outcome_due_at)
            else outcome_due_at
        end as sitting_at
    from points

),

with_horizon as (

    select
        *,
        {{ dbt.dateadd(
            'day', var('repurchase_horizon_days'), 'sitting_at'
        ) }} as horizon_ends_at,
        {{ dbt.dateadd(
            'day',
            var('repurchase_horizon_days'),
            'case when sitting_at < due_at then due_at else sitting_at end'
        ) }} as label_known_at
    from with_sitting

),

bought_again as (

    select distinct
        with_horizon.student_id,
        with_horizon.course_id,
        with_horizon.assessment_id,
        with_horizon.as_of_date
    from with_horizon
    inner join purchases
        on
            with_horizon.student_id = purchases.student_id
            and with_horizon.course_id = purchases.course_id
    where
        purchases.purchased_at >= with_horizon.sitting_at
        and purchases.purchased_at < with_horizon.horizon_ends_at

),

-- Once for all the days on which the same sitting is predicted.
sittings as (

    select distinct
        student_id,
        course_run_id,
        sitting_at,
        label_known_at
    from with_horizon

),

studied as (

    select distinct
        sittings.student_id,
        sittings.course_run_id,
        sittings.sitting_at,
        sittings.label_known_at
    from sittings
    inner join activity
        on
            sittings.student_id = activity.student_id
            and sittings.course_run_id = activity.course_run_id
    where
        activity.study_facts > 0
        and activity.activity_date <= cast(sittings.sitting_at as date)
        and activity.known_date < cast(sittings.label_known_at as date)

),

labelled as (

    select
        with_horizon.student_id,
        with_horizon.course_id,
        with_horizon.assessment_id,
        with_horizon.as_of_date,
        with_horizon.label_known_at,
        case when bought_again.student_id is null then 0 else 1 end as outcome,
        -- Nothing was ever studied: a postponement, not a failure. Where
        -- activity is not recorded that cannot be said.
        case
            when
                studied.student_id is null
                and coverage.study_known_from
                < cast(with_horizon.label_known_at as date)
                then 'postponed'
            else 'matured'
        end as status_once_known
    from with_horizon
    left join bought_again
        on
            with_horizon.student_id = bought_again.student_id
            and with_horizon.course_id = bought_again.course_id
            and with_horizon.assessment_id = bought_again.assessment_id
            and with_horizon.as_of_date = bought_again.as_of_date
    left join studied
        on
            with_horizon.student_id = studied.student_id
            and with_horizon.course_run_id = studied.course_run_id
            and with_horizon.sitting_at = studied.sitting_at
            and with_horizon.label_known_at = studied.label_known_at
    left join coverage
        on with_horizon.activity_scope_id = coverage.activity_scope_id

)

select * from labelled
