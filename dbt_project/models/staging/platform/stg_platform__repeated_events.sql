{{
    config(
        materialized='incremental' if builds_incrementally() else 'table',
        incremental_strategy='delete+insert' if builds_incrementally() else none,
        unique_key='event_id',
        on_schema_change='fail',
        pre_hook=['{{ delete_forgotten(this) }}', '{{ delete_repeated_again() }}'],
    )
}}

-- The few events whose id occurs more than once, numbered. Kept apart as a
-- table, so that the view of all events needs no window over them. A run after the
-- first one looks for copies of the ids that have become known since.
-- depends_on: {{ ref('int_read_from') }}
-- depends_on: {{ ref('stg_platform__event_files') }}
-- depends_on: {{ ref('stg_platform__parsed_events') }}

{% set since = known_again_from() if is_incremental() else none %}

with

-- Not from a CTE of all events: DuckDB would hold one that is used twice in memory.
candidate_ids as (

    {% if since %}
    select distinct event_id
    from {{ ref('stg_platform__parsed_events') }}
    where {{ is_known_again(event_known_at(), since) }}
    {% if not holds_event_files() %}

    union distinct

    -- A file may have another name since.
    select event_id
    from {{ this }}
    {% endif %}
    {% else %}
    select event_id
    from {{ ref('stg_platform__identified_events') }}
    group by event_id
    -- Ids that are null are not counted, and no copies of each other.
    having count(event_id) > 1
    {% endif %}

),

copies as (

    select
        events.*,
        count(*) over (partition by events.event_id) as copies
    from {{ ref('stg_platform__identified_events') }} as events
    inner join candidate_ids on events.event_id = candidate_ids.event_id

),

repeats as (

    select * from copies
    where copies > 1

),

{{ check_events('repeats') }},

-- What was known first stays: a copy that is delivered later changes nothing.
repeated_events as (

    select
        raw_event_id,
        event_id,
        student_id,
        course_id,
        event_type,
        item_id,
        quantity,
        occurred_at,
        loaded_at,
        source_file,
        {{ event_known_at() }} as known_at,
        rejected_because,
        row_number() over (
            partition by event_id, rejected_because
            order by
                {{ event_known_at() }},
                occurred_at,
                loaded_at nulls last,
                student_id,
                course_id nulls last,
                event_type,
                item_id nulls last,
                quantity nulls last,
                source_file,
                raw_event_id
        ) as copy_number
    from checked_events

)

select * from repeated_events
