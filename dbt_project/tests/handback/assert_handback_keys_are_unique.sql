-- What is this? Rows of the tables that Python writes back which share a key, as
-- `meta.key` in _handback__sources.yml names it; one row per table and number of rows
-- too many.
--
-- When does it matter? Always: a student scored twice is flagged and written to
-- twice.
--
-- How do I fix it? The write of that table is not idempotent: it has to replace what
-- it wrote before, in one transaction. See ml/warehouse.py.

with

repeated as (

    {%- set tables = [] %}
    {%- if execute %}
    {%- for node in graph.sources.values() if node.config.meta.get('key') %}
        {%- do tables.append(node) %}
    {%- endfor %}
    {%- endif %}
    {%- for table in tables | sort(attribute='name') %}
    select
        '{{ table.schema }}.{{ table.name }}' as table_name,
        count(*) as rows_too_many
    from (
        select
            row_number() over (
                partition by {{ table.config.meta.key | join(', ') }}
                order by {{ table.config.meta.key | join(', ') }}
            ) as copy_number
        from {{ source(table.source_name, table.name) }}
    ) as numbered
    where copy_number > 1
    {% if not loop.last %}union all{% endif %}
    {%- else %}
    select
        'none' as table_name,
        0 as rows_too_many
    {%- endfor %}

)

select * from repeated
where rows_too_many > 0
