{%- set tables = platform_tables() %}

with

quarantined as (

    {%- for table, ids in tables.items() if table != 'activity_events' %}
    select
        '{{ table }}' as source_table,
        {{ record_key(ids) }} as record_key,
        rejected_because as reason
    from {{ ref('stg_platform__' ~ table) }}
    where rejected_because is not null

    union all
    {% endfor %}
    -- Too many to look for again.
    select
        'activity_events' as source_table,
        record_key,
        reason
    from {{ ref('stg_platform__rejected_events') }}

)

select * from quarantined
