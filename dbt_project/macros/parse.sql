{#
  Casts of raw values that never fail: what does not parse is null, so that
  staging can tell a wrong value from a missing one and quarantine the row.
  Each takes text (a CSV) as well as native types (Parquet, a table).
  tests/assert_parse_*.sql hold what is accepted and what is not.
#}

{# Text without surrounding blanks; null where nothing is left. #}
{% macro blank_to_null(column) %}
    {{ return(adapter.dispatch('blank_to_null')(column)) }}
{% endmacro %}

{% macro default__blank_to_null(column) -%}
    nullif({{ trimmed(column) }}, '')
{%- endmacro %}

{# Only text has blanks; the branch not taken costs nothing. #}
{% macro duckdb__blank_to_null(column) -%}
    case
        when typeof({{ column }}) = 'VARCHAR'
            then nullif(trim(cast({{ column }} as varchar)), '')
        else cast({{ column }} as varchar)
    end
{%- endmacro %}


{# The same of a column of which nearly every value is another one. #}
{% macro blank_id_to_null(column) %}
    {{ return(adapter.dispatch('blank_id_to_null')(column)) }}
{% endmacro %}

{% macro default__blank_id_to_null(column) -%}
    {{ return(blank_to_null(column)) }}
{%- endmacro %}

{# Seeing that there is nothing to trim takes a quarter of the time that trimming
   does. Of the blanks one is ASCII, of which every sign is one byte long. #}
{% macro duckdb__blank_id_to_null(column) -%}
    {%- set text = 'cast(' ~ column ~ ' as varchar)' -%}
    case
        when
            {{ text }} >= '!'
            and not ends_with({{ text }}, ' ')
            and strlen({{ text }}) = length({{ text }})
            then {{ text }}
        else {{ blank_to_null(column) }}
    end
{%- endmacro %}


{# Text without blanks around it, those of other scripts and widths included. #}
{% macro trimmed(column) %}
    {{ return(adapter.dispatch('trimmed')(column)) }}
{% endmacro %}

{% macro default__trimmed(column) -%}
    trim(cast({{ column }} as {{ dbt.type_string() }}))
{%- endmacro %}

{# Spark knows one blank; these are the ones of Unicode (category Zs), as on DuckDB. #}
{% macro spark__trimmed(column) -%}
    {%- set blanks = ' \\u00a0\\u1680\\u2000\\u2001\\u2002\\u2003\\u2004\\u2005\\u2006'
        ~ '\\u2007\\u2008\\u2009\\u200a\\u202f\\u205f\\u3000' -%}
    trim(both '{{ blanks }}' from cast({{ column }} as string))
{%- endmacro %}


{# Text in lower case. Engines differ in what becomes of the capital that Turkish makes
   of an i. #}
{% macro lower_case(text) -%}
    lower(replace({{ text }}, 'İ', 'i'))
{%- endmacro %}


{#
  A UTC timestamp: ISO text with T or a blank, with or without seconds, their
  fraction, Z, UTC or an offset (without one: UTC); a plain date is its midnight. Months,
  days and hours may have one digit, and dates slashes. Years outside 1900-9999 are
  mistakes. The session's time zone must be UTC, as the profile sets it.
#}
{% macro parse_timestamp(column) %}
    {{ return(adapter.dispatch('parse_timestamp')(column)) }}
{% endmacro %}

{# What engines read beyond that differs (24:00, +25:00, year 2024 alone), and a name
   of a time zone in one row moves the rows after it on DuckDB. #}
{% macro timestamp_pattern() %}
    {%- set day -%}
        ([0-9]{4}-[0-9]{1,2}-[0-9]{1,2}|[0-9]{4}/[0-9]{1,2}/[0-9]{1,2})
    {%- endset -%}
    {%- set seconds = '(:[0-5]?[0-9]([.][0-9]+)?)?' -%}
    {%- set time = '([01]?[0-9]|2[0-3]):[0-5]?[0-9]' ~ seconds -%}
    {%- set zone = '( ?(Z|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?))?' -%}
    {{ return('^' ~ day ~ '([T ] *' ~ time ~ zone ~ ')?$') }}
{% endmacro %}

{# Spark, too, wants seconds before an offset, and no blank. #}
{% macro spark__parse_timestamp(column) -%}
    {%- set text -%}
        replace(upper(trim(both ' \t\r\n' from cast({{ column }} as string))), ' UTC', 'Z')
    {%- endset -%}
    {%- set with_seconds -%}
        regexp_replace(
            regexp_replace(replace({{ text }}, '/', '-'), '[T ] *([0-9])', ' $1'),
            '^([0-9-]+ [0-9]+:[0-9]+) ?(Z|[+-][0-9:]+)$', '$1:00$2'
        )
    {%- endset -%}
    {%- set rewritten -%}
        regexp_replace({{ with_seconds }}, ' (Z|[+-][0-9:]+)$', '$1')
    {%- endset -%}
    {%- set value -%}
        case
            when typeof({{ column }}) in ('timestamp', 'timestamp_ntz', 'date')
                then try_cast({{ column }} as timestamp)
            when {{ text }} rlike '{{ timestamp_pattern() }}'
                then try_cast({{ rewritten }} as timestamp)
        end
    {%- endset -%}
    {{ plausible_timestamp(value) }}
{%- endmacro %}

{# DuckDB ignores an offset when it casts to timestamp, and wants seconds before
   one; only values that fail at first pay for being rewritten. #}
{% macro duckdb__parse_timestamp(column) -%}
    {%- set text = 'upper(trim(cast(' ~ column ~ " as varchar), e' \\t\\r\\n'))" -%}
    {%- set text = 'replace(' ~ text ~ ", ' UTC', 'Z')" -%}
    {%- set with_seconds -%}
        regexp_replace(
            {{ text }},
            '^([0-9]{4}[-/][0-9/-]+[T ] *[0-9]+:[0-9]+) ?(Z|[+-][0-9:]+)$',
            '\1:00\2'
        )
    {%- endset -%}
    {%- set rewritten -%}
        regexp_replace({{ with_seconds }}, ' (Z|[+-][0-9:]+)$', '\1')
    {%- endset -%}
    {%- set instant -%}
        coalesce(
            try_cast({{ text }} as timestamptz),
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
            when typeof({{ column }}) <> 'VARCHAR'
                then cast(try_cast({{ column }} as timestamptz) as timestamp)
            when regexp_matches({{ text }}, '{{ timestamp_pattern() }}')
                then cast({{ instant }} as timestamp)
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
    {%- set value = number_or_null(column) -%}
    case when {{ value }} between -1e300 and 1e300 then {{ value }} end
{%- endmacro %}


{# A whole number of 32 bits; 3.0 is 3, 3.5 is none. #}
{% macro parse_integer(column) %}
    {{ return(adapter.dispatch('parse_integer')(column)) }}
{% endmacro %}

{% macro default__parse_integer(column) -%}
    {%- set value = number_or_null(column) -%}
    case
        when
            {{ value }} between -2147483648 and 2147483647
            and {{ value }} = floor({{ value }})
            then cast({{ value }} as integer)
    end
{%- endmacro %}


{# Digits with a point and an exponent where they are; engines also read 1_000, 0x1F
   or 5d, each others of them. #}
{% macro number_pattern() %}
    {{ return('^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$') }}
{% endmacro %}

{% macro number_or_null(column) %}
    {{ return(adapter.dispatch('number_or_null')(column)) }}
{% endmacro %}

{% macro spark__number_or_null(column) -%}
    {%- set text = "trim(both ' \t\r\n' from cast(" ~ column ~ ' as string))' -%}
    case
        when typeof({{ column }}) <> 'string' or {{ text }} rlike '{{ number_pattern() }}'
            then try_cast({{ column }} as double)
    end
{%- endmacro %}

{# Where a Parquet file's statistics leave NaN out, as pyarrow's do, DuckDB takes every
   value to be between them, and NaN would pass the comparisons above. #}
{% macro duckdb__number_or_null(column) -%}
    {%- set text = 'trim(cast(' ~ column ~ " as varchar), e' \\t\\r\\n')" -%}
    case
        when isnan(try_cast({{ column }} as double)) then null
        when typeof({{ column }}) <> 'VARCHAR'
            or regexp_matches({{ text }}, '{{ number_pattern() }}')
            then try_cast({{ column }} as double)
    end
{%- endmacro %}


{# true, t, yes, y, 1 and their opposites, in any case. #}
{% macro parse_boolean(column) %}
    {{ return(adapter.dispatch('parse_boolean')(column)) }}
{% endmacro %}

{% macro default__parse_boolean(column) -%}
    {%- set text = lower_case(trimmed(column)) -%}
    case
        when {{ text }} in ('true', 't', 'yes', 'y', '1', '1.0') then true
        when {{ text }} in ('false', 'f', 'no', 'n', '0', '0.0') then false
    end
{%- endmacro %}
