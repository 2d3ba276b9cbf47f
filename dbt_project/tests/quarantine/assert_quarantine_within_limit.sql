{{ config(severity='error') }}

{%- do name_tables_over_quarantine_limit() %}

-- What is this? One row per raw table of which more than max_quarantine_share
-- of the rows were rejected, with the commonest reason.
--
-- When does it matter? Single dirty rows are normal. A table over the limit was
-- damaged, mapped wrongly, or lost a table that it points to; what is built on
-- the rest would look right and be wrong.
--
-- How do I fix it? Read quarantine.quarantine_by_reason for the table, and
-- quarantine.quarantine for the ids. Many 'is unknown' mean that the parent
-- table lacks rows, or has lost them to its own quarantine: begin there. Many
-- 'is not a time' or 'in the future' mean a format or a time zone: see
-- docs/bring-your-own-data.md. If the data really is like that, raise
-- max_quarantine_share in dbt_project.yml, or with --vars.

with

reasons as (

    select
        source_table,
        reason,
        rejected_rows,
        row_number() over (
            partition by source_table
            order by rejected_rows desc, reason
        ) as rank_of_reason
    from {{ ref('quarantine_by_reason') }}

),

over_limit as (

    select
        summary.source_table,
        summary.raw_rows,
        summary.rejected_rows,
        summary.rejected_share,
        reasons.reason as commonest_reason,
        reasons.rejected_rows as rows_with_this_reason
    from {{ ref('quarantine_summary') }} as summary
    left join reasons
        on
            summary.source_table = reasons.source_table
            and reasons.rank_of_reason = 1
    where summary.rejected_share > {{ var('max_quarantine_share') }}

)

select * from over_limit
