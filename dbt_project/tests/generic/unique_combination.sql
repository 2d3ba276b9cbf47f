{#
  Fails when two rows have the same values in all of `columns`; nulls count as
  equal. Where a run adds to a table, `since` is a table of one day, and a build looks
  at the rows that became known from it on: the run made these, and no older row can
  be equal to one of them. `dbt test` looks at all.
#}
{% test unique_combination(model, columns, since=none) %}

select
    {{ columns | join(',\n    ') }},
    count(*) as copies
from {{ model }}
{% if since and flags.WHICH == 'build' %}
where known_date >= (select * from {{ since }})
{% endif %}
group by
    {{ columns | join(',\n    ') }}
having count(*) > 1

{% endtest %}
