{{ config(contract={'enforced': true}) }}

with

points as (

    select * from {{ ref('int_prediction_points') }}

),

labels as (

    select * from {{ ref('target_' ~ setting('target_definition')) }}

),

calendar as (

    select * from {{ ref('int_calendar') }}

),

messages as (

    select * from {{ source('intervene', 'messages') }}
    where sent_at is not null

),

contacted as (

    select distinct
        points.student_id,
        points.course_id,
        points.assessment_id,
        points.as_of_date
    from points
    inner join messages
        on points.student_id = messages.student_id
    where
        messages.sent_at >= points.as_of_date
        -- An open sitting ends when it is sat; a moved one at its new time.
        and (
            coalesce(points.outcome_due_at, points.submitted_at) is null
            or messages.sent_at
            < coalesce(points.outcome_due_at, points.submitted_at)
        )

),

with_status as (

    select
        points.*,
        labels.outcome,
        labels.label_known_at,
        case
            when labels.label_known_at is null then 'pending'
            when labels.label_known_at > calendar.data_until then 'pending'
            else labels.status_once_known
        end as label_status,
        contacted.student_id is not null as contacted_before_due
    from points
    cross join calendar
    inner join labels
        on
            points.student_id = labels.student_id
            and points.course_id = labels.course_id
            and points.assessment_id = labels.assessment_id
            and points.as_of_date = labels.as_of_date
    left join contacted
        on
            points.student_id = contacted.student_id
            and points.course_id = contacted.course_id
            and points.assessment_id = contacted.assessment_id
            and points.as_of_date = contacted.as_of_date

),

student_targets as (

    select
        student_id,
        course_id,
        assessment_id,
        as_of_date,
        course_run_id,
        due_at,
        lead_days,
        is_training_point,
        is_scoring_point,
        assessment_kind,
        assessment_position,
        assessment_position = 1 as is_first_sitting,
        attempt_number,
        run_started_at,
        case when label_status = 'matured' then outcome end as at_risk,
        label_status,
        label_known_at,
        cast('{{ setting('target_definition') }}' as {{ dbt.type_string() }})
            as target_definition,
        contacted_before_due
    from with_status

)

select * from student_targets
