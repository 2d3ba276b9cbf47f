{{ config(contract={'enforced': true}) }}

-- One row per campaign and student: what was to be sent, and what was. In time is
-- from the day of the flag until the sitting that counts is due.

with

assignments as (

    select * from {{ source('intervene', 'campaign_assignments') }}

),

messages as (

    select * from {{ source('intervene', 'messages') }}

),

arrivals as (

    select
        message_id,
        max(case when event in ('delivered', 'replied') then 1 else 0 end)
            as has_arrived,
        max(case when event = 'bounced' then 1 else 0 end) as has_bounced
    from {{ source('intervene', 'message_events') }}
    group by message_id

),

of_students as (

    select
        assignments.campaign,
        assignments.student_id,
        messages.message_id,
        messages.channel,
        messages.tone,
        messages.drafter,
        messages.sent_at,
        case when messages.campaign = assignments.campaign then 1 else 0 end
            as is_own,
        case
            when
                messages.sent_at >= assignments.as_of_date
                and (
                    assignments.due_at is null
                    or messages.sent_at < assignments.due_at
                )
                then 1
            else 0
        end as is_in_time,
        coalesce(arrivals.has_arrived, 0) as has_arrived,
        coalesce(arrivals.has_bounced, 0) as has_bounced,
        row_number() over (
            partition by
                assignments.campaign,
                assignments.student_id,
                case when messages.campaign = assignments.campaign then 1 else 0 end
            order by
                case when messages.sent_at is null then 1 else 0 end,
                messages.sent_at,
                messages.created_at,
                messages.message_id
        ) as place
    from assignments
    inner join messages
        on assignments.student_id = messages.student_id
    left join arrivals
        on messages.message_id = arrivals.message_id

),

by_student as (

    select
        campaign,
        student_id,
        {{ count_where('is_own = 1') }} as messages_drafted,
        {{ count_where('is_own = 1 and sent_at is not null') }} as messages_sent,
        {{ count_where('is_own = 1 and is_in_time = 1') }}
            as messages_sent_in_time,
        {{ count_where('is_own = 1 and has_arrived = 1') }}
            as messages_delivered,
        {{ count_where('is_own = 1 and has_bounced = 1') }} as messages_bounced,
        {{ count_where('is_own = 0 and is_in_time = 1') }}
            as other_messages_in_time,
        min(case when is_own = 1 then sent_at end) as first_sent_at,
        max(case when is_own = 1 and place = 1 then channel end) as channel,
        max(case when is_own = 1 and place = 1 then tone end) as tone,
        max(case when is_own = 1 and place = 1 then drafter end) as drafter
    from of_students
    group by
        campaign,
        student_id

),

with_counts as (

    select
        assignments.campaign,
        assignments.student_id,
        assignments.arm,
        assignments.is_control,
        assignments.course_id,
        assignments.course_run_id,
        assignments.assessment_id,
        assignments.due_at,
        assignments.as_of_date,
        assignments.assigned_at,
        coalesce(by_student.messages_drafted, 0) as messages_drafted,
        coalesce(by_student.messages_sent, 0) as messages_sent,
        coalesce(by_student.messages_sent_in_time, 0) as messages_sent_in_time,
        coalesce(by_student.messages_delivered, 0) as messages_delivered,
        coalesce(by_student.messages_bounced, 0) as messages_bounced,
        coalesce(by_student.other_messages_in_time, 0) as other_messages_in_time,
        by_student.first_sent_at,
        by_student.channel,
        by_student.tone,
        by_student.drafter
    from assignments
    left join by_student
        on
            assignments.campaign = by_student.campaign
            and assignments.student_id = by_student.student_id

),

experiment_exposure as (

    select
        *,
        case
            when
                is_control
                and messages_sent_in_time + other_messages_in_time > 0
                then 'control written to'
            when is_control then 'as assigned'
            when messages_sent_in_time = 0 then 'not written to'
            when other_messages_in_time > 0 then 'written to by others too'
            else 'as assigned'
        end as compliance
    from with_counts

)

select * from experiment_exposure
