-- One column of the raw table, joined to nothing: finding repeated ids among all
-- events is the dearest thing that is done with them.

with

source as (

    select * from {{ raw_table('platform', 'activity_events') }} as raw

),

event_ids as (

    select {{ blank_to_null('event_id') }} as event_id
    from source

)

select * from event_ids
