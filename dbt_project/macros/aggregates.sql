{# How many rows meet a condition, as a bigint; null conditions do not count. (A
   count: DuckDB adds whole numbers up in 16 bytes, which takes longer.) #}
{% macro count_where(condition) %}
    count(case when {{ condition }} then 1 end)
{%- endmacro %}


{# The same of a day: in four bytes, which DuckDB adds up in eight. #}
{% macro count_of_day(condition) %}
    cast({{ count_where(condition) }} as {{ dbt.type_int() }})
{%- endmacro %}


{# The sum of whole numbers as one of eight bytes; DuckDB's own has sixteen. #}
{% macro add_up(value, type=none, over=none) %}
    cast(
        sum({{ value }}){{ ' over ' ~ over if over }}
        as {{ type or dbt.type_bigint() }}
    )
{%- endmacro %}


{# A column in the row that outer joins make of several tables' rows. #}
{% macro joined_column(column, tables) %}
    {{- 'coalesce(' ~ tables | join('.' ~ column ~ ', ') ~ '.' ~ column ~ ')' -}}
{% endmacro %}


{# The sum of a column in such a row; zero where there is none, or null where it may be. #}
{% macro add_up_joined(column, tables, may_be_null=false) %}
    {%- set values = [] -%}
    {%- for table in tables -%}
        {%- do values.append('coalesce(' ~ table ~ '.' ~ column ~ ', 0)') -%}
    {%- endfor -%}
    {{- 'case when ' ~ joined_column(column, tables) ~ ' is not null then '
        if may_be_null -}}
    {{- values | join(' + ') -}}
    {{- ' end' if may_be_null -}}
{% endmacro %}


{#
  Counting different values of every group holds each of them for each group; where
  they are few, one bit each in a whole number says the same. This numbers them, the
  most used first, as long as there are bits: `counted` is a CTE of `value` and `uses`.
  With `within`, columns that every group has one value of, each has bits of its own.
#}
{% macro flag_values(counted, value, within=[]) -%}
    select
        {% for column in within + [value, 'uses'] %}
        {{ column }},
        {% endfor %}
        case
            when number < 63
                then cast(power(2, number) as {{ dbt.type_bigint() }})
        end as flag
    from (
        select
            {% for column in within + [value, 'uses'] %}
            {{ column }},
            {% endfor %}
            row_number() over (
                {% if within %}partition by {{ within | join(', ') }}{% endif %}
                order by uses desc, {{ value }}
            ) - 1 as number
        from {{ counted }}
    ) as numbered
{%- endmacro %}


{# How many different values there are; those without a flag are held. #}
{% macro count_flagged(flag, value) %}
    {{ return(adapter.dispatch('count_flagged')(flag, value)) }}
{% endmacro %}

{% macro default__count_flagged(flag, value) -%}
    cast(
        coalesce(bit_count(bit_or({{ flag }})), 0)
        + count(distinct {{ value }}) filter (where {{ flag }} is null)
        as {{ dbt.type_int() }}
    )
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
