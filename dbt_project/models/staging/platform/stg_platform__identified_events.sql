-- Values as they are but for the id: finding repeated ids among all events is the
-- dearest thing that is done with them, and only the copies found need be parsed.

with

source as (

    select * from {{ raw_table('platform', 'activity_events', with_file=true) }} as raw

),

identified_events as (

    select
        cast(event_id as {{ dbt.type_string() }}) as raw_event_id,
        {{ blank_id_to_null('event_id') }} as event_id,
        student_id as raw_student_id,
        course_id as raw_course_id,
        event_type as raw_event_type,
        item_id as raw_item_id,
        quantity as raw_quantity,
        occurred_at as raw_occurred_at,
        loaded_at as raw_loaded_at,
        source_file
    from source

)

select * from identified_events
