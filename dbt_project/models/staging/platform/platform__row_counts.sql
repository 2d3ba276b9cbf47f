{{ config(materialized='table') }}

{%- set tables = platform_tables() %}

with

row_counts as (

    {%- for table in tables %}
    select
        '{{ table }}' as source_table,
        count(*) as raw_rows,
        {{ count_forgotten('platform', table) }} as forgotten_rows
    from {{ raw_table('platform', table, and_forgotten=true) }} as raw
    {%- if not loop.last %}

    union all
    {% endif %}
    {%- endfor %}

)

select * from row_counts
