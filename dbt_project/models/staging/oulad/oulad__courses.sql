with

runs as (

    select * from {{ ref('stg_oulad__courses') }}
    where rejected_because is null

),

courses as (

    select distinct
        code_module as course_id,
        code_module as title,
        cast(null as {{ dbt.type_string() }}) as category,
        cast(null as double) as duration_minutes
    from runs

)

select * from courses
