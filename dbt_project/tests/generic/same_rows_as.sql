{#
  Fails when the rows of the model are not those of `other`, told apart by
  `columns`: a join has lost rows, made rows twice, or brought in new ones.
  Nulls count as equal.
#}
{% test same_rows_as(model, other, columns) %}

select
    {{ columns | join(',\n    ') }},
    sum(is_here) as rows_here,
    sum(is_there) as rows_there
from (
    select
        {{ columns | join(',\n        ') }},
        1 as is_here,
        0 as is_there
    from {{ model }}

    union all

    select
        {{ columns | join(',\n        ') }},
        0 as is_here,
        1 as is_there
    from {{ other }}
) as both_sides
group by
    {{ columns | join(',\n    ') }}
having sum(is_here) <> sum(is_there)

{% endtest %}
