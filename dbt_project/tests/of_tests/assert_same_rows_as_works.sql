-- Fails when the generic test same_rows_as passes tables that it should
-- not, or the other way round.

{% set no_rows %}
    (select 1 as a, 1 as b where 1 = 0) as inline_rows
{% endset %}
{% set one_row %}
    (select 1 as a, 1 as b) as inline_rows
{% endset %}
{% set other_row %}
    (select 1 as a, 2 as b) as inline_rows
{% endset %}
{% set row_twice %}
    (select 1 as a, 1 as b union all select 1 as a, 1 as b) as inline_rows
{% endset %}
{% set null_row %}
    (select 1 as a, cast(null as integer) as b) as inline_rows
{% endset %}

with

found as (

    select
        (
            select count(*)
            from ({{ test_same_rows_as(one_row, one_row, ['a', 'b']) }}) as t
        ) as on_the_same,
        (
            select count(*)
            from ({{ test_same_rows_as(null_row, null_row, ['a', 'b']) }}) as t
        ) as on_the_same_null,
        (
            select count(*)
            from ({{ test_same_rows_as(no_rows, one_row, ['a', 'b']) }}) as t
        ) as on_a_lost_row,
        (
            select count(*)
            from ({{ test_same_rows_as(row_twice, one_row, ['a', 'b']) }}) as t
        ) as on_a_row_made_twice,
        (
            -- As many rows, yet not the same.
            select count(*)
            from ({{ test_same_rows_as(other_row, one_row, ['a', 'b']) }}) as t
        ) as on_another_row

)

select * from found
where not (
    on_the_same = 0
    and on_the_same_null = 0
    and on_a_lost_row = 1
    and on_a_row_made_twice = 1
    and on_another_row = 2
)
