{{ config(contract={'enforced': true}) }}

-- What this warehouse was built with, so that Python can refuse to mix and the next
-- build knows what it need not do again. Written when the features are there.
-- depends_on: {{ ref('student_features_14d') }}

-- Both are about the day from which the next build looks again, and null where this
-- one did not make all that they vouch for.
{% set next_day = '(select ' ~ look_back('data_until') ~ ' from '
    ~ ref('int_calendar') ~ ')' %}
{% set facts = known_facts_checksum(next_day) %}
{% set activity = activity_checksum(next_day, held='now') %}
{% set no_checksum = 'cast(null as ' ~ dbt.type_string() ~ ')' %}
{% set data_until = '(select data_until from ' ~ ref('int_calendar') ~ ')' %}
{% set event_files = event_files_checksum(data_until) if reads_event_files()
    else no_checksum %}

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
        {{ facts if builds_whole() else no_checksum }} as facts_checksum,
        {{ activity if builds_whole() else no_checksum }} as activity_checksum,
        {{ event_files if builds_whole() else no_checksum }} as event_files_checksum
    from calendar

)

select * from settings
