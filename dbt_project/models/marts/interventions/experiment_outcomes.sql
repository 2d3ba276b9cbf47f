{{ config(contract={'enforced': true}) }}

-- One row per campaign and student: what became of the sitting first flagged, beside
-- what was known when the arm was drawn. Nothing of the second is looked up anew.

with

assignments as (

    select * from {{ source('intervene', 'campaign_assignments') }}

),

exposure as (

    select * from {{ ref('experiment_exposure') }}

),

calendar as (

    select * from {{ ref('int_calendar') }}

),

-- A sitting has one answer, from whatever day one asks; the points of an earlier
-- scoring day are gone from student_targets, those at the leads are there.
answers as (

    select
        student_id,
        course_run_id,
        assessment_id,
        max(at_risk) as at_risk,
        max(case when label_status = 'matured' then label_known_at end)
            as label_known_at,
        max(case when label_status = 'matured' then 1 else 0 end) as is_matured,
        max(case when label_status = 'pending' then 1 else 0 end) as is_pending,
        max(case when label_status = 'postponed' then 1 else 0 end)
            as is_postponed
    from {{ ref('student_targets') }}
    group by
        student_id,
        course_run_id,
        assessment_id

),

activity as (

    select
        student_id,
        activity_date
    from {{ ref('int_daily_activity') }}
    where facts > sessions

),

studied as (

    select distinct
        assignments.campaign,
        assignments.student_id
    from assignments
    inner join activity
        on
            assignments.student_id = activity.student_id
            and assignments.as_of_date <= activity.activity_date
            and {{ add_days('assignments.as_of_date', 14) }}
            > activity.activity_date

),

opted_out as (

    select
        student_id,
        opted_out_at
    from {{ ref('contacts') }}
    where opted_out_at is not null

),

complaints as (

    select
        messages.student_id,
        max(events.happened_at) as complained_at
    from {{ source('intervene', 'message_events') }} as events
    inner join {{ source('intervene', 'messages') }} as messages
        on events.message_id = messages.message_id
    where events.event = 'complained'
    group by messages.student_id

),

experiment_outcomes as (

    select
        assignments.campaign,
        assignments.student_id,
        assignments.arm,
        assignments.is_control,
        assignments.course_id,
        assignments.course_run_id,
        assignments.assessment_id,
        assignments.as_of_date,
        assignments.lead_days,
        case
            when assignments.lead_days <= 7 then '0-7'
            when assignments.lead_days <= 14 then '8-14'
            when assignments.lead_days <= 21 then '15-21'
            when assignments.lead_days > 21 then '22 or more'
        end as lead_band,
        assignments.risk_score,
        assignments.risk_band,
        assignments.engagement_zone,
        assignments.flag_policy,
        case
            when answers.student_id is null then 'not_asked'
            when answers.is_matured = 1 then 'matured'
            when answers.is_pending = 1 then 'pending'
            when answers.is_postponed = 1 then 'postponed'
            else 'unobserved'
        end as outcome_status,
        answers.at_risk,
        answers.label_known_at,
        case
            when
                calendar.data_until
                < {{ add_days('assignments.as_of_date', 14) }}
                then null
            when studied.student_id is not null then 1
            else 0
        end as studied_within_14_days,
        exposure.messages_sent,
        exposure.messages_sent_in_time,
        coalesce(opted_out.opted_out_at >= assignments.as_of_date, false)
            as opted_out,
        coalesce(complaints.complained_at >= assignments.as_of_date, false)
            as complained
    from assignments
    cross join calendar
    inner join exposure
        on
            assignments.campaign = exposure.campaign
            and assignments.student_id = exposure.student_id
    left join answers
        on
            assignments.student_id = answers.student_id
            and assignments.course_run_id = answers.course_run_id
            and assignments.assessment_id = answers.assessment_id
    left join studied
        on
            assignments.campaign = studied.campaign
            and assignments.student_id = studied.student_id
    left join opted_out
        on assignments.student_id = opted_out.student_id
    left join complaints
        on assignments.student_id = complaints.student_id

)

select * from experiment_outcomes
