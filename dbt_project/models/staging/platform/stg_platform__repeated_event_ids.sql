{{ config(materialized='table') }}

-- From the raw table, because that reads one column and joins nothing.

with

source as (

    select * from {{ raw_table('platform', 'activity_events') }} as raw

),

event_ids as (

    select {{ blank_to_null('event_id') }} as event_id
    from source

),

repeated_event_ids as (

    select event_id
    from event_ids
    where event_id is not null
    group by event_id
    having count(*) > 1

)

select * from repeated_event_ids
