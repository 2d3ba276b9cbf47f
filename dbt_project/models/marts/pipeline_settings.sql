{{ config(contract={'enforced': true}) }}

-- What this warehouse was built with, so that Python can refuse to mix and the next
-- build knows what it need not do again. Written when the features are there.
-- depends_on: {{ ref('student_features_14d') }}

{% set next_day = look_back('calendar.data_until') %}
{% set checksum = known_facts_checksum(next_day) %}
{% set early_rows = activity_rows_before(next_day) %}
{% if not builds_incrementally() %}
    {% set checksum = 'cast(null as ' ~ dbt.type_string() ~ ')' %}
    {% set early_rows = 'null' %}
{% endif %}

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
        -- Both are about the day from which the next build looks again.
        {{ checksum }} as facts_checksum,
        cast({{ early_rows }} as {{ dbt.type_bigint() }}) as early_activity_rows
    from calendar

)

select * from settings
