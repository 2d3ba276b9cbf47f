{#
  Fails when a value is below `min_value` or above `max_value`, of which one
  may be left out; nulls pass.
#}
{% test accepted_range(model, column_name, min_value=none, max_value=none) %}

{% if min_value is none and max_value is none %}
    {{ exceptions.raise_compiler_error(
        'accepted_range of ' ~ column_name
        ~ ' needs min_value, max_value or both'
    ) }}
{% endif %}

select {{ column_name }}
from {{ model }}
where
    1 = 0
    {% if min_value is not none %}
    or {{ column_name }} < {{ min_value }}
    {% endif %}
    {% if max_value is not none %}
    or {{ column_name }} > {{ max_value }}
    {% endif %}

{% endtest %}
