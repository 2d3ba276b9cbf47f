{{ config(schema='quarantine', contract={'enforced': true}) }}

with

quarantine as (

    select
        source_table,
        record_key,
        reason
    from {{ canonical('quarantined') }}

)

select * from quarantine
