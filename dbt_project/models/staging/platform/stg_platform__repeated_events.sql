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
-- first one looks for copies of the ids that have become known since, and of those that
-- it holds of the look-back.
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
    where
        {{ is_known_again(event_known_at(), since) }}
        and {{ in_new_file() }}

    union distinct

    -- What is wrong with them may be another reason now, or none. Where not every file
    -- is held, one may have another name since, too.
    select event_id
    from {{ this }}
    {% if holds_event_files() %}
    where coalesce(
        known_at >= cast('{{ since }}' as {{ dbt.type_timestamp() }}), true
    )
    {% endif %}
    {% else %}
    -- Of all events the hashes of ids are held, which take less memory and time.
    select {{ row_hash(['event_id']) }} as event_id_hash
    from {{ ref('stg_platform__identified_events') }}
    group by {{ row_hash(['event_id']) }}
    -- Ids that are null are not counted, and no copies of each other.
    having count(event_id) > 1
    {% endif %}

),

copies as (

    select
        events.*,
        count(*) over (partition by events.event_id) as copies
    from {{ ref('stg_platform__identified_events') }} as events
    {% if since %}
    inner join candidate_ids on events.event_id = candidate_ids.event_id
    {% else %}
    inner join candidate_ids
        on {{ row_hash(['events.event_id']) }} = candidate_ids.event_id_hash
    {% endif %}

),

repeats as (

    select * from copies
    where
        copies > 1
        and event_id is not null

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
