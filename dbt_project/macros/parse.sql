{#
  Casts of raw values that never fail: what does not parse is null, so that
  staging can tell a wrong value from a missing one and quarantine the row.
  Each takes text (a CSV) as well as native types (Parquet, a table).
  tests/assert_parse_*.sql hold what is accepted and what is not.
#}

{# A cast that gives null where the value does not fit. (dbt.safe_cast raises
   on DuckDB.) #}
{% macro cast_or_null(column, type) %}
    {{ return(adapter.dispatch('cast_or_null')(column, type)) }}
{% endmacro %}

{% macro default__cast_or_null(column, type) -%}
    try_cast({{ column }} as {{ type }})
{%- endmacro %}


{# Text without surrounding blanks; null where nothing is left. #}
{% macro blank_to_null(column) %}
    {{ return(adapter.dispatch('blank_to_null')(column)) }}
{% endmacro %}

{% macro default__blank_to_null(column) -%}
    nullif(trim(cast({{ column }} as {{ dbt.type_string() }})), '')
{%- endmacro %}

{# Only text has blanks; the branch not taken costs nothing. #}
{% macro duckdb__blank_to_null(column) -%}
    case
        when typeof({{ column }}) = 'VARCHAR'
            then nullif(trim(cast({{ column }} as varchar)), '')
        else cast({{ column }} as varchar)
    end
{%- endmacro %}


{#
  A UTC timestamp: ISO text with T or a blank, with or without seconds, their
  fraction, Z or an offset (without one: UTC); a plain date is its midnight.
  Years outside 1900-9999 are mistakes. The session's time zone must be UTC,
  as the profile sets it.
#}
{% macro parse_timestamp(column) %}
    {{ return(adapter.dispatch('parse_timestamp')(column)) }}
{% endmacro %}

{# Spark casts every one of these shapes itself. #}
{% macro default__parse_timestamp(column) -%}
    {{ plausible_timestamp(cast_or_null(
        'trim(cast(' ~ column ~ ' as string))', 'timestamp'
    )) }}
{%- endmacro %}

{# DuckDB ignores an offset when it casts to timestamp, and wants seconds before
   one; only values that fail at first pay for being rewritten. #}
{% macro duckdb__parse_timestamp(column) -%}
    {%- set text = 'upper(trim(cast(' ~ column ~ " as varchar), e' \\t\\r\\n'))" -%}
    {%- set with_seconds -%}
        regexp_replace(
            {{ text }},
            '^([0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}) ?(Z|[+-][0-9:]+)$',
            '\1:00\2'
        )
    {%- endset -%}
    {%- set rewritten -%}
        regexp_replace({{ with_seconds }}, ' (Z|[+-][0-9:]+)$', '\1')
    {%- endset -%}
    {%- set instant -%}
        coalesce(
            try_cast({{ column }} as timestamptz),
            try_cast({{ rewritten }} as timestamptz)
        )
    {%- endset -%}
    {#- DuckDB knows the type before it runs, and drops the branch not taken: what
        Parquet types already costs next to nothing. -#}
    {%- set value -%}
        case
            when typeof({{ column }}) in (
                'TIMESTAMP', 'TIMESTAMP_NS', 'TIMESTAMP_MS', 'TIMESTAMP_S', 'DATE'
            )
                then try_cast({{ column }} as timestamp)
            else cast({{ instant }} as timestamp)
        end
    {%- endset -%}
    {{ plausible_timestamp(value) }}
{%- endmacro %}

{% macro plausible_timestamp(value) -%}
    case
        when
            {{ value }} >= cast('1900-01-01' as timestamp)
            and {{ value }} < cast('9999-12-31' as timestamp)
            then {{ value }}
    end
{%- endmacro %}


{# A finite double; NaN and infinity are not numbers that one can add up. #}
{% macro parse_number(column) %}
    {{ return(adapter.dispatch('parse_number')(column)) }}
{% endmacro %}

{% macro default__parse_number(column) -%}
    {%- set value = cast_or_null(column, 'double') -%}
    case when {{ value }} between -1e300 and 1e300 then {{ value }} end
{%- endmacro %}


{# A whole number of 32 bits; 3.0 is 3, 3.5 is none. #}
{% macro parse_integer(column) %}
    {{ return(adapter.dispatch('parse_integer')(column)) }}
{% endmacro %}

{% macro default__parse_integer(column) -%}
    {%- set value = cast_or_null(column, 'double') -%}
    case
        when
            {{ value }} between -2147483648 and 2147483647
            and {{ value }} = floor({{ value }})
            then cast({{ value }} as integer)
    end
{%- endmacro %}


{# true, t, yes, y, 1 and their opposites, in any case. #}
{% macro parse_boolean(column) %}
    {{ return(adapter.dispatch('parse_boolean')(column)) }}
{% endmacro %}

{% macro default__parse_boolean(column) -%}
    {%- set text = 'lower(trim(cast(' ~ column ~ ' as ' ~ dbt.type_string() ~ ')))' -%}
    case
        when {{ text }} in ('true', 't', 'yes', 'y', '1', '1.0') then true
        when {{ text }} in ('false', 'f', 'no', 'n', '0', '0.0') then false
    end
{%- endmacro %}
