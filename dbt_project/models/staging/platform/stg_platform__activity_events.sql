with

events as (

    select * from {{ ref('stg_platform__checked_events') }}

),

repeated_events as (

    select * from {{ ref('stg_platform__repeated_events') }}

),

repeated_ids as (

    select distinct event_id as repeated_event_id
    from repeated_events

),

activity_events as (

    select
        events.event_id,
        events.student_id,
        events.course_id,
        events.event_type,
        events.item_id,
        events.quantity,
        events.occurred_at,
        events.loaded_at,
        events.rejected_because
    from events
    left join repeated_ids on events.event_id = repeated_ids.repeated_event_id
    where repeated_ids.repeated_event_id is null

    union all

    select
        event_id,
        student_id,
        course_id,
        event_type,
        item_id,
        quantity,
        occurred_at,
        loaded_at,
        case
            when rejected_because is null and copy_number > 1
                then 'event_id is repeated'
            else rejected_because
        end as rejected_because
    from repeated_events

)

select * from activity_events
