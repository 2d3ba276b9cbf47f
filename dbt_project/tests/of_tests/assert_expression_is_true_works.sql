-- Fails when the generic test expression_is_true passes rows that it should
-- not, or the other way round.

{% set rows %}
    (
        select 1 as a, 2 as b
        union all
        select 3 as a, 2 as b
        union all
        select null as a, 2 as b
    ) as inline_rows
{% endset %}

with

found as (

    select
        (
            select count(*)
            from ({{ test_expression_is_true(rows, 'a < 10 and b = 2') }}) as t
        ) as where_true_or_null,
        (
            select count(*)
            from ({{ test_expression_is_true(rows, 'a < b') }}) as t
        ) as where_one_is_false,
        (
            -- An `or` inside must not escape the `not`.
            select count(*)
            from ({{ test_expression_is_true(rows, 'b = 2 or a = 1') }}) as t
        ) as where_either_is_true

)

select * from found
where not (
    where_true_or_null = 0
    and where_one_is_false = 1
    and where_either_is_true = 0
)
