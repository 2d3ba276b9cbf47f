{{ config(enabled=setting('source_system') == 'oulad', severity='error') }}

-- What is this? One row per raw table whose accepted, rejected and forgotten rows
-- do not add up to what was read.
--
-- When does it matter? Always: rows were lost in silence, or counted twice.
--
-- How do I fix it? Look at the joins of the stg_oulad__ model that reads
-- <source_table>: one of them meets a parent that is not unique, or drops rows.

with

accepted as (

    {%- for table in oulad_tables() %}
    select
        '{{ table }}' as source_table,
        count(*) as accepted_rows
    from {{ oulad_clean(table) }}
    where rejected_because is null
    {%- if not loop.last %}

    union all
    {% endif %}
    {%- endfor %}

),

rejected as (

    select
        source_table,
        count(*) as rejected_rows
    from {{ ref('oulad__quarantined') }}
    group by source_table

),

unbalanced as (

    select
        row_counts.source_table,
        row_counts.raw_rows,
        accepted.accepted_rows,
        rejected.rejected_rows
    from {{ ref('oulad__row_counts') }} as row_counts
    left join accepted on row_counts.source_table = accepted.source_table
    left join rejected on row_counts.source_table = rejected.source_table
    where
        row_counts.raw_rows
        <> accepted.accepted_rows
        + coalesce(rejected.rejected_rows, 0)
        + row_counts.forgotten_rows

)

select * from unbalanced
