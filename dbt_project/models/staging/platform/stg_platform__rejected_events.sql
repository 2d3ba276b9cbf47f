{{
    config(
        materialized='incremental' if builds_incrementally() else 'table',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook=['{{ delete_forgotten(this) }}', '{{ delete_known_again() }}'],
    )
}}

-- The events that were rejected, as a table, so that a later run need not look at
-- every event again; at those without a valid time it does, unless it holds their file.
-- depends_on: {{ ref('int_read_from') }}
-- depends_on: {{ ref('stg_platform__event_files') }}

{% set since = known_again_from() if is_incremental() else none %}

with

rejected as (

    select
        event_id,
        student_id,
        course_id,
        item_id,
        {{ event_known_at() }} as known_at,
        rejected_because as reason,
        source_file
    from {{ ref('stg_platform__activity_events') }}
    where rejected_because is not null

),

rejected_events as (

    select
        student_id,
        course_id,
        {{ record_key(platform_tables()['activity_events']) }} as record_key,
        reason,
        cast(known_at as date) as known_date
    from rejected
    {% if since %}
    where {{ is_known_again('known_at', since) }}
    {% endif %}

)

select * from rejected_events
