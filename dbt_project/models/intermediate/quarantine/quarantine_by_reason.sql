{{ config(schema='quarantine', contract={'enforced': true}) }}

with

quarantine as (

    select * from {{ ref('quarantine') }}

),

by_reason as (

    select
        source_table,
        reason,
        count(*) as rejected_rows
    from quarantine
    group by
        source_table,
        reason

)

select * from by_reason
