{{ config(materialized='table') }}

with

counted as (

    select
        coalesce(activity_type, 'unknown') as activity_kind,
        count(*) as uses
    from {{ ref('stg_oulad__vle') }}
    group by coalesce(activity_type, 'unknown')

),

activity_kinds as (

    {{ flag_values('counted', 'activity_kind') }}

)

select * from activity_kinds
