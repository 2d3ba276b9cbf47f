{# A date moved by whole days; dbt.dateadd alone gives a timestamp on some engines. #}
{% macro add_days(day, days) %}
    cast({{ dbt.dateadd('day', days, day) }} as date)
{% endmacro %}


{# One row per item of a list, as column `name`; portable where VALUES is not. #}
{% macro rows_of(items, name) %}
    {% for item in items %}
    select {{ item }} as {{ name }}
    {% if not loop.last %}union all{% endif %}
    {% endfor %}
{% endmacro %}
