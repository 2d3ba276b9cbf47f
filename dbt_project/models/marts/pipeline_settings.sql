{{ config(contract={'enforced': true}) }}

-- What this warehouse was built with, so that Python can refuse to mix and the next
-- build knows what it need not do again. Written when the features are there.
-- depends_on: {{ ref('student_features_14d') }}

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
        data_until,
        cast('{{ build_fingerprint() }}' as {{ dbt.type_string() }})
            as build_fingerprint,
        {% if builds_incrementally() %}
        -- Both are about the day from which the next build looks again.
        {{ known_facts_checksum(look_back('calendar.data_until')) }}
            as facts_checksum,
        cast(
            {{ activity_rows_before(look_back('calendar.data_until')) }}
            as {{ dbt.type_bigint() }}
        ) as early_activity_rows
        {% else %}
        cast(null as {{ dbt.type_string() }}) as facts_checksum,
        cast(null as {{ dbt.type_bigint() }}) as early_activity_rows
        {% endif %}
    from calendar

)

select * from settings
