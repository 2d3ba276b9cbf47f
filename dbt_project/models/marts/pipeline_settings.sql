{{ config(contract={'enforced': true}) }}

-- What this warehouse was built with, so that Python can refuse to mix.

with

calendar as (

    select * from {{ ref('int_calendar') }}

),

settings as (

    select
        cast('{{ setting('source_system') }}' as {{ dbt.type_string() }})
            as source_system,
        cast(
            {{ sql_text(setting('data_raw_path')) }}
            as {{ dbt.type_string() }}
        ) as data_raw_path,
        cast('{{ setting('target_definition') }}' as {{ dbt.type_string() }})
            as target_definition,
        cast(
            {{ setting('observation_window_days') }} as {{ dbt.type_int() }}
        ) as observation_window_days,
        cast(
            '{{ setting('prediction_leads') | join(',') }}'
            as {{ dbt.type_string() }}
        ) as prediction_leads,
        {{ setting('include_attributes') | lower }} as include_attributes,
        as_of_date,
        data_until
    from calendar

)

select * from settings
