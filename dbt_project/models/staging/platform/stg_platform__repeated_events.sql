{{ config(materialized='table') }}

-- The few events whose id occurs more than once, numbered. Kept apart as a
-- table, so that the view of all events needs no window over them.

with

events as (

    select * from {{ ref('stg_platform__checked_events') }}

),

repeated_ids as (

    select * from {{ ref('stg_platform__repeated_event_ids') }}

),

-- What was known first stays: a copy that is delivered later changes nothing.
repeated_events as (

    select
        events.event_id,
        events.student_id,
        events.course_id,
        events.event_type,
        events.item_id,
        events.quantity,
        events.occurred_at,
        events.loaded_at,
        events.rejected_because,
        row_number() over (
            partition by events.event_id, events.rejected_because
            order by
                greatest(
                    events.occurred_at,
                    coalesce(events.loaded_at, events.occurred_at)
                ),
                events.occurred_at,
                events.loaded_at nulls last,
                events.student_id,
                events.course_id nulls last,
                events.event_type,
                events.item_id nulls last,
                events.quantity nulls last
        ) as copy_number
    from events
    inner join repeated_ids on events.event_id = repeated_ids.event_id

)

select * from repeated_events
