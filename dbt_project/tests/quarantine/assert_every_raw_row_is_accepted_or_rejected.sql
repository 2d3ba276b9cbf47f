{{ config(
    enabled=setting('source_system') in ['sample', 'platform'],
    severity='error',
) }}

-- What is this? One row per raw table whose accepted, rejected and forgotten
-- rows do not add up to what was read.
--
-- When does it matter? Always: rows were lost in silence, or counted twice.
--
-- How do I fix it? Look at the joins of model stg_platform__<source_table>: one
-- of them meets a parent that is not unique, or an inner join drops rows. Where
-- activity_events alone are off and a `dbt build --full-refresh` mends it, daily
-- activity missed rows that became known before the look-back.

with

accepted as (

    {%- for table in platform_tables() if table != 'activity_events' %}
    select
        '{{ table }}' as source_table,
        count(*) as accepted_rows
    from {{ ref('stg_platform__' ~ table) }}
    where rejected_because is null

    union all
    {% endfor %}
    -- Those that arrived in the daily table, which is held from run to run.
    select
        'activity_events' as source_table,
        {{ add_up('events') }} as accepted_rows
    from {{ ref('int_daily_activity') }}

),

unbalanced as (

    select
        summary.source_table,
        summary.raw_rows,
        accepted.accepted_rows,
        summary.rejected_rows
    from {{ ref('quarantine_summary') }} as summary
    left join accepted on summary.source_table = accepted.source_table
    where
        accepted.source_table is null
        or accepted.accepted_rows + summary.rejected_rows
        + summary.forgotten_rows <> summary.raw_rows

)

select * from unbalanced
