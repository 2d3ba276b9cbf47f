{{ config(materialized='table') }}

{%- set tables = oulad_tables() %}

with

row_counts as (

    {%- for table in tables %}
    select
        '{{ table }}' as source_table,
        count(*) as raw_rows,
        {{ count_forgotten('oulad', table) }} as forgotten_rows
    from {{ raw_table('oulad', table, and_forgotten=true) }} as file_rows
    {%- if not loop.last %}

    union all
    {% endif %}
    {%- endfor %}

)

select * from row_counts
