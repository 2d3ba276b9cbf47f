{%- set tables = platform_tables() %}

with

quarantined as (

    {%- for table, ids in tables.items() %}
    select
        '{{ table }}' as source_table,
        {{ record_key(ids) }} as record_key,
        rejected_because as reason
    from {{ ref('stg_platform__' ~ table) }}
    where rejected_because is not null
    {%- if not loop.last %}

    union all
    {% endif %}
    {%- endfor %}

)

select * from quarantined
