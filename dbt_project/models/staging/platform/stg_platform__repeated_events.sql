{{
    config(
        materialized='incremental' if builds_incrementally() else 'table',
        incremental_strategy='delete+insert' if builds_incrementally() else none,
        unique_key='event_id',
        on_schema_change='fail',
        pre_hook='{{ delete_forgotten(this) }}',
    )
}}

-- The few events whose id occurs more than once, numbered. Kept apart as a
-- table, so that the view of all events needs no window over them. A run after the
-- first one looks for copies of the ids that have become known since.

with

events as (

    select
        *,
        greatest(occurred_at, coalesce(loaded_at, occurred_at)) as known_at
    from {{ ref('stg_platform__checked_events') }}

),

candidate_ids as (

    {% if is_incremental() %}
    -- depends_on: {{ ref('stg_platform__event_ids') }}
    select distinct event_id
    from events
    where known_at >= cast('{{ known_again_from() }}' as {{ dbt.type_timestamp() }})
    {% else %}
    select event_id
    from {{ ref('stg_platform__event_ids') }}
    where event_id is not null
    group by event_id
    having count(*) > 1
    {% endif %}

),

copies as (

    select
        events.*,
        count(*) over (partition by events.event_id) as copies
    from events
    inner join candidate_ids on events.event_id = candidate_ids.event_id

),

-- What was known first stays: a copy that is delivered later changes nothing.
repeated_events as (

    select
        event_id,
        student_id,
        course_id,
        event_type,
        item_id,
        quantity,
        occurred_at,
        loaded_at,
        known_at,
        rejected_because,
        row_number() over (
            partition by event_id, rejected_because
            order by
                known_at,
                occurred_at,
                loaded_at nulls last,
                student_id,
                course_id nulls last,
                event_type,
                item_id nulls last,
                quantity nulls last
        ) as copy_number
    from copies
    where copies > 1

)

select * from repeated_events
