-- Values as they are, not checked and joined to nothing: finding repeated ids among
-- all events is the dearest thing that is done with them.

with

source as (

    select * from {{ raw_table('platform', 'activity_events') }} as raw

),

parsed_events as (

    select
        {{ blank_to_null('event_id') }} as event_id,
        {{ blank_to_null('student_id') }} as student_id,
        {{ blank_to_null('course_id') }} as course_id,
        {{ blank_to_null('event_type') }} as event_type,
        {{ blank_to_null('item_id') }} as item_id,
        quantity as raw_quantity,
        {{ parse_number('quantity') }} as quantity,
        {{ parse_timestamp('occurred_at') }} as occurred_at,
        loaded_at as raw_loaded_at,
        {{ parse_timestamp('loaded_at') }} as loaded_at
    from source

)

select * from parsed_events
