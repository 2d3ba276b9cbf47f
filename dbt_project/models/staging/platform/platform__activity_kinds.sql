{{ config(materialized='table') }}

-- Events that are rejected are in it too: it need only have the kinds of those that
-- are not, and looking at one column is soon done. Of files that are held it knows
-- them already.
-- depends_on: {{ ref('stg_platform__event_files') }}

{% set is_held = holds_event_files() and load_relation(this) is not none %}

with

named as (

    select
        event_type as activity_kind,
        1 as uses
    from {{ ref('stg_platform__parsed_events') }}
    where event_type is not null{% if is_held %} and {{ in_new_file() }}{% endif %}

    union all

    -- What is no event has a kind, too.
    select
        'progress' as activity_kind,
        0 as uses

    union all

    select
        'quiz_answer' as activity_kind,
        0 as uses
    {% if is_held %}

    union all

    select
        activity_kind,
        uses
    from {{ this }}
    {% endif %}

),

counted as (

    select
        activity_kind,
        {{ add_up('uses') }} as uses
    from named
    group by activity_kind

),

activity_kinds as (

    {{ flag_values('counted', 'activity_kind') }}

)

select * from activity_kinds
