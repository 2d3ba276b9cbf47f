{#
  Fails when `expression` is false in a row; where it is null the row passes, as
  in a check constraint.
#}
{% test expression_is_true(model, expression) %}

select *
from {{ model }}
where not ({{ expression }})

{% endtest %}
