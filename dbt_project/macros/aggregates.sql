{# How many rows meet a condition, as a bigint; null conditions do not count. #}
{% macro count_where(condition) %}
    cast(sum(case when {{ condition }} then 1 else 0 end) as {{ dbt.type_bigint() }})
{%- endmacro %}


{# A quotient as a double, null where there is nothing to divide by. #}
{% macro ratio(numerator, denominator) %}
    cast({{ numerator }} as {{ type_double() }})
    / nullif(cast({{ denominator }} as {{ type_double() }}), 0)
{%- endmacro %}


{#
  An activity count: zero where nothing happened, null where it is unknown
  because nothing of its kind had been recorded in the scope by then.
#}
{% macro if_recorded(value, kind) %}
    case
        when coverage.{{ kind }}_known_from < observations.as_of_date
            then cast(coalesce({{ value }}, 0) as {{ type_double() }})
    end
{%- endmacro %}


{# A value as the double that features are. #}
{% macro as_number(value) %}
    cast({{ value }} as {{ type_double() }})
{%- endmacro %}


{#
  A double as a decimal, rounded half away from zero: sums of floats depend on the
  order of rows.
#}
{% macro as_decimal(value, precision=28, scale=6) %}
    {{ return(adapter.dispatch('as_decimal')(value, precision, scale)) }}
{% endmacro %}

{% macro default__as_decimal(value, precision, scale) -%}
    cast({{ value }} as decimal({{ precision }}, {{ scale }}))
{%- endmacro %}

{# Spark takes the shortest text of a double for its value, DuckDB its bits: they differ
   where a digit too many is a 5, and in the sixteenth digit. #}
{% macro spark__as_decimal(value, precision, scale) -%}
    {%- set scaled = 'round(cast(' ~ value ~ ' as double) * 1e' ~ scale ~ ')' -%}
    cast(
        case
            when abs({{ scaled }}) < 9e18
                then cast(cast({{ scaled }} as bigint) as decimal({{ precision }}, 0))
            else cast({{ scaled }} as decimal({{ precision }}, 0))
        end * {{ '0.' ~ '0' * (scale - 1) ~ '1' }}
        as decimal({{ precision }}, {{ scale }})
    )
{%- endmacro %}


{# Eight bytes: dbt.type_float() is a four-byte float on DuckDB and Spark. #}
{% macro type_double() %}{{ return(adapter.dispatch('type_double')()) }}{% endmacro %}
{% macro default__type_double() %}{{ return('double') }}{% endmacro %}
{% macro postgres__type_double() %}{{ return('double precision') }}{% endmacro %}
