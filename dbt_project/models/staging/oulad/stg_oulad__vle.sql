{{ config(materialized='table') }}

with

source as (

    select * from {{ raw_table('oulad', 'vle') }} as file_rows

),

runs as (

    select * from {{ ref('stg_oulad__courses') }}
    where rejected_because is null

),

parsed as (

    select
        {{ blank_to_null('code_module') }} as code_module,
        {{ blank_to_null('code_presentation') }} as code_presentation,
        {{ blank_to_null('id_site') }} as id_site,
        {{ blank_to_null('activity_type') }} as activity_type
    from source

),

checked as (

    select
        parsed.*,
        runs.course_run_id,
        case
            when parsed.id_site is null then 'id_site is missing'
            when runs.course_run_id is null
                then 'no such presentation in courses'
        end as rejected_because
    from parsed
    left join runs
        on
            parsed.code_module = runs.code_module
            and parsed.code_presentation = runs.code_presentation

),

numbered as (

    select
        *,
        row_number() over (
            partition by id_site, rejected_because
            order by course_run_id, activity_type nulls last
        ) as copy_number
    from checked

),

vle as (

    select
        code_module,
        code_presentation,
        id_site,
        course_run_id,
        activity_type,
        case
            when rejected_because is null and copy_number > 1
                then 'id_site is repeated'
            else rejected_because
        end as rejected_because
    from numbered

)

select * from vle
