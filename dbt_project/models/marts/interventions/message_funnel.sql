{{ config(contract={'enforced': true}) }}

-- How far messages came. A message counts in every state that it was ever in, so
-- that each number is at most the one it is a part of.

with

messages as (

    select * from {{ source('intervene', 'messages') }}

),

assignments as (

    select * from {{ source('intervene', 'campaign_assignments') }}

),

reached as (

    select
        message_id,
        max(case when event = 'checked' then 1 else 0 end) as is_checked,
        max(case when event = 'approved' then 1 else 0 end) as is_approved,
        max(case when event = 'rejected' then 1 else 0 end) as is_rejected,
        max(case when event = 'scheduled' then 1 else 0 end) as is_scheduled,
        max(case when event = 'sent' then 1 else 0 end) as is_sent,
        max(case when event = 'delivered' then 1 else 0 end) as is_delivered,
        max(case when event = 'bounced' then 1 else 0 end) as is_bounced,
        max(case when event = 'replied' then 1 else 0 end) as is_replied,
        max(case when event = 'complained' then 1 else 0 end) as is_complained,
        -- The other kind of outcome lifts what a bounce or a complaint forbade.
        max(case when event = 'outcome' and reason <> 'released' then 1 else 0 end)
            as has_outcome
    from {{ source('intervene', 'message_events') }}
    group by message_id

),

edited as (

    select distinct message_id
    from {{ source('intervene', 'message_edits') }}

),

placed as (

    select
        messages.campaign,
        coalesce(assignments.arm, 'none') as arm,
        messages.channel,
        messages.tone,
        messages.drafter,
        messages.student_id,
        messages.state,
        reached.is_checked,
        reached.is_approved,
        reached.is_rejected,
        reached.is_scheduled,
        reached.is_sent,
        reached.is_delivered,
        reached.is_bounced,
        reached.is_replied,
        reached.is_complained,
        reached.has_outcome,
        case when edited.message_id is null then 0 else 1 end as is_edited
    from messages
    left join assignments
        on
            messages.campaign = assignments.campaign
            and messages.student_id = assignments.student_id
    left join reached on messages.message_id = reached.message_id
    left join edited on messages.message_id = edited.message_id

),

message_funnel as (

    select
        campaign,
        arm,
        channel,
        tone,
        drafter,
        count(distinct student_id) as students,
        count(*) as drafted,
        {{ count_where('is_checked = 1') }} as checked,
        {{ count_where("state in ('proposed', 'drafted', 'checked')") }}
            as waiting_for_review,
        {{ count_where('is_edited = 1') }} as edited,
        {{ count_where('is_approved = 1') }} as approved,
        {{ count_where('is_rejected = 1') }} as rejected,
        {{ count_where('is_scheduled = 1') }} as scheduled,
        {{ count_where('is_sent = 1') }} as sent,
        {{ count_where('is_delivered = 1') }} as delivered,
        {{ count_where('is_bounced = 1') }} as bounced,
        {{ count_where('is_replied = 1') }} as replied,
        {{ count_where('is_complained = 1') }} as complained,
        {{ count_where('has_outcome = 1') }} as with_outcome
    from placed
    group by
        campaign,
        arm,
        channel,
        tone,
        drafter

)

select * from message_funnel
