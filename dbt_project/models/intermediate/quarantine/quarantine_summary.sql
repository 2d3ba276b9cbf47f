{{ config(schema='quarantine', contract={'enforced': true}) }}

with

row_counts as (

    select * from {{ canonical('row_counts') }}

),

rejected as (

    select
        source_table,
        count(*) as rejected_rows
    from {{ ref('quarantine') }}
    group by source_table

),

summary as (

    select
        row_counts.source_table,
        row_counts.raw_rows,
        coalesce(rejected.rejected_rows, 0) as rejected_rows,
        row_counts.forgotten_rows,
        {{ ratio(
            'coalesce(rejected.rejected_rows, 0)', 'row_counts.raw_rows'
        ) }}
            as rejected_share
    from row_counts
    left join rejected on row_counts.source_table = rejected.source_table

)

select * from summary
