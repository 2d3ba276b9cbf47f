{{ config(materialized='table') }}

with

source as (

    select * from {{ raw_table('oulad', 'courses') }} as file_rows

),

parsed as (

    select
        {{ blank_to_null('code_module') }} as code_module,
        {{ blank_to_null('code_presentation') }} as code_presentation,
        module_presentation_length as raw_module_presentation_length,
        {{ parse_integer('module_presentation_length') }}
            as module_presentation_length
    from source

),

-- B presentations start on 1 February, J on 1 October.
dated as (

    select
        *,
        case
            when length(code_presentation) <> 5 then null
            when substr(code_presentation, 5, 1) = 'B'
                then substr(code_presentation, 1, 4) || '-02-01'
            when substr(code_presentation, 5, 1) = 'J'
                then substr(code_presentation, 1, 4) || '-10-01'
        end as start_day
    from parsed

),

started as (

    select
        *,
        {{ parse_timestamp('start_day') }} as run_started_at
    from dated

),

checked as (

    select
        *,
        case
            {{ reject_missing(['code_module', 'code_presentation']) }}
            when run_started_at is null
                then 'code_presentation is not a year and B or J'
            {{ reject_missing(['raw_module_presentation_length']) }}
            {{ reject_bad_number('module_presentation_length', 1, 3650) }}
        end as rejected_because
    from started

),

numbered as (

    select
        *,
        row_number() over (
            partition by code_module, code_presentation, rejected_because
            order by module_presentation_length
        ) as copy_number
    from checked

),

courses as (

    select
        code_module,
        code_presentation,
        code_module || '_' || code_presentation as course_run_id,
        run_started_at,
        case
            when rejected_because is null
                then {{ oulad_day_start('module_presentation_length') }}
        end as run_ended_at,
        case
            when rejected_because is null and copy_number > 1
                then 'code_module and code_presentation are repeated'
            else rejected_because
        end as rejected_because
    from numbered

)

select * from courses
