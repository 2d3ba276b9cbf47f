{{ config(contract={'enforced': true}) }}

-- From the moment a draft could be read to the first decision of a person. What the
-- sender rejects by itself (too late, opted out) comes after an approval.

with

messages as (

    select * from {{ source('intervene', 'messages') }}

),

moments as (

    select
        message_id,
        min(case when event = 'checked' then happened_at end) as checked_at,
        min(case when event in ('approved', 'rejected') then happened_at end)
            as decided_at,
        min(case when event = 'approved' then happened_at end) as approved_at
    from {{ source('intervene', 'message_events') }}
    group by message_id

),

review_times as (

    select
        messages.message_id,
        messages.campaign,
        messages.channel,
        messages.tone,
        messages.drafter,
        moments.checked_at,
        moments.decided_at,
        case
            when moments.approved_at = moments.decided_at then 'approved'
            else 'rejected'
        end as decision,
        {{ as_number(dbt.datediff(
            'moments.checked_at', 'moments.decided_at', 'second'
        )) }} / 3600 as hours_to_decision
    from messages
    inner join moments on messages.message_id = moments.message_id
    where moments.decided_at is not null

)

select * from review_times
