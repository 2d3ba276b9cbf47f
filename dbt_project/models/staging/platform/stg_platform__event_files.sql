{{
    config(
        materialized='table',
        post_hook='{{ void_event_files() }}',
    )
}}

{% set files = list_event_files() %}
{% set held = held_event_files(files) %}
{% set settled = settled_event_files() if held else [] %}
{% set known_at = event_known_at() %}

-- Which files hold the events, which of them do the tables hold already, and from when
-- until when are events of theirs known?

with

listed as (

    select
        source_file,
        cast(bytes as {{ dbt.type_bigint() }}) as bytes,
        cast(modified_at as {{ dbt.type_timestamp() }}) as modified_at
    from {{ event_file_rows(files) }}

),

known as (

    select
        source_file,
        max(case when {{ is_in_time(known_at) }} then {{ known_at }} end)
            as last_known_at,
        min(case when not {{ is_in_time(known_at) }} then {{ known_at }} end)
            as next_known_at
    from {{ ref('stg_platform__parsed_events') }}
    where not {{ is_one_of(settled) }}
    group by source_file

    {% if settled %}
    union all

    select
        source_file,
        last_known_at,
        next_known_at
    from {{ this }}
    where {{ is_one_of(settled) }}
    {% endif %}

),

event_files as (

    select
        listed.source_file,
        listed.bytes,
        listed.modified_at,
        known.last_known_at,
        known.next_known_at,
        case
            when {{ is_one_of(held, 'listed.source_file') }} then false
            else true
        end as is_new
    from listed
    -- What came after the view of all events was made is for the next run.
    inner join known on listed.source_file = known.source_file

)

select * from event_files
