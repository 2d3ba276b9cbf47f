-- The question itself: which assessment, how long before it, and how this
-- course has gone for those whose outcome was known by then.

with

points as (

    select * from {{ ref('int_points_to_build') }}

),

-- Outcomes of points that have their features already count for the others.
asked_before as (

    select * from {{ ref('int_prediction_points') }}
    where is_training_point

),

labels as (

    select * from {{ ref('target_' ~ setting('target_definition')) }}

),

calendar as (

    select * from {{ ref('int_calendar') }}

),

courses as (

    select * from {{ canonical('courses') }}

),

-- One outcome per sitting, whatever the number of leads it is asked at.
outcomes as (

    select
        asked_before.student_id,
        asked_before.course_run_id,
        asked_before.course_id,
        asked_before.assessment_id,
        asked_before.assessment_kind,
        asked_before.assessment_position,
        max(cast(labels.label_known_at as date)) as known_date,
        max(labels.outcome) as outcome
    from asked_before
    inner join labels
        on
            asked_before.student_id = labels.student_id
            and asked_before.course_id = labels.course_id
            and asked_before.assessment_id = labels.assessment_id
            and asked_before.as_of_date = labels.as_of_date
    cross join calendar
    where
        labels.label_known_at <= calendar.data_until
        and labels.status_once_known = 'matured'
    group by
        asked_before.student_id,
        asked_before.course_run_id,
        asked_before.course_id,
        asked_before.assessment_id,
        asked_before.assessment_kind,
        asked_before.assessment_position

),

outcomes_by_day as (

    select
        course_id,
        assessment_kind,
        assessment_position,
        known_date,
        count(*) as outcomes,
        sum(outcome) as failures
    from outcomes
    group by
        course_id,
        assessment_kind,
        assessment_position,
        known_date

),

asked as (

    select distinct
        course_id,
        assessment_kind,
        assessment_position,
        as_of_date
    from points

),

-- A label that is known at some time of a day is known by the next one.
failure_rates as (

    select
        asked.course_id,
        asked.assessment_kind,
        asked.assessment_position,
        asked.as_of_date,
        {{ ratio(
            'sum(outcomes_by_day.failures)', 'sum(outcomes_by_day.outcomes)'
        ) }} as course_failure_rate,
        {{ ratio(
            'sum(case when outcomes_by_day.assessment_kind '
            ~ '= asked.assessment_kind '
            ~ 'and outcomes_by_day.assessment_position '
            ~ '= asked.assessment_position '
            ~ 'then outcomes_by_day.failures end)',
            'sum(case when outcomes_by_day.assessment_kind '
            ~ '= asked.assessment_kind '
            ~ 'and outcomes_by_day.assessment_position '
            ~ '= asked.assessment_position '
            ~ 'then outcomes_by_day.outcomes end)'
        ) }} as position_failure_rate
    from asked
    inner join outcomes_by_day
        on asked.course_id = outcomes_by_day.course_id
    where outcomes_by_day.known_date < asked.as_of_date
    group by
        asked.course_id,
        asked.assessment_kind,
        asked.assessment_position,
        asked.as_of_date

),

features as (

    select
        points.student_id,
        points.course_id,
        points.assessment_id,
        points.as_of_date,
        points.lead_days,
        {{ as_number('points.assessment_weight') }}
            as context_assessment_weight,
        {{ as_number('points.assessment_position') }}
            as context_assessment_position,
        points.assessment_kind as context_assessment_kind,
        courses.category as context_course_category,
        {{ as_number(dbt.datediff(
            'cast(points.began_at as date)', 'points.as_of_date', 'day'
        )) }} as context_days_enrolled,
        {{ as_number(dbt.datediff(
            'cast(points.run_started_at as date)', 'points.as_of_date', 'day'
        )) }} as context_days_into_run,
        {{ as_number(dbt.datediff(
            'cast(points.began_at as date)',
            'cast(points.run_started_at as date)',
            'day'
        )) }} as context_days_enrolled_before_start,
        failure_rates.course_failure_rate as context_course_failure_rate,
        failure_rates.position_failure_rate as context_position_failure_rate
    from points
    left join courses
        on points.course_id = courses.course_id
    left join failure_rates
        on
            points.course_id = failure_rates.course_id
            and points.assessment_kind = failure_rates.assessment_kind
            and points.assessment_position = failure_rates.assessment_position
            and points.as_of_date = failure_rates.as_of_date

)

select * from features
