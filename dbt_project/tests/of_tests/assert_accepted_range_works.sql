-- Fails when the generic test accepted_range passes rows that it should
-- not, or the other way round.

{% set rows %}
    (
        select 0 as a
        union all
        select 5 as a
        union all
        select null as a
    ) as inline_rows
{% endset %}

with

found as (

    select
        (
            select count(*)
            from ({{ test_accepted_range(rows, 'a', 0, 5) }}) as t
        ) as on_the_bounds,
        (
            select count(*)
            from ({{ test_accepted_range(rows, 'a', min_value=1) }}) as t
        ) as below,
        (
            select count(*)
            from ({{ test_accepted_range(rows, 'a', max_value=4) }}) as t
        ) as above

)

select * from found
where not (
    on_the_bounds = 0
    and below = 1
    and above = 1
)
