{# A date moved by whole days; dbt.dateadd alone gives a timestamp on some engines. #}
{% macro add_days(day, days) %}
    cast({{ dbt.dateadd('day', days, day) }} as date)
{% endmacro %}


{# The day of the week, 0 for Monday to 6 for Sunday, of days from 1900 on. #}
{% macro weekday(day) %}
    {# 1900-01-01 was a Monday; engines do not agree on how to number weekdays. #}
    mod({{ dbt.datediff("cast('1900-01-01' as date)", day, 'day') }}, 7)
{%- endmacro %}


{# One row per item of a list, as column `name`; portable where VALUES is not. #}
{% macro rows_of(items, name) %}
    {% for item in items %}
    select {{ item }} as {{ name }}
    {% if not loop.last %}union all{% endif %}
    {% endfor %}
{% endmacro %}


{#
  Days after its own after which activity leaves the observation window, its late half,
  and all of it but the early half (not told apart where that is the same day).
#}
{% macro leaves_window_after() %}
    {% set window_days = setting('observation_window_days') %}
    {% set half = window_days // 2 %}
    {% set leaving = {'window': window_days, 'late': half} %}
    {% if window_days - half != half %}
        {% do leaving.update({'rest': window_days - half}) %}
    {% endif %}
    {{ return(leaving) }}
{% endmacro %}


{# When an event could be known: when it was loaded, if that was later. #}
{% macro event_known_at() -%}
    greatest(occurred_at, coalesce(loaded_at, occurred_at))
{%- endmacro %}
