-- Fails when the generic test unique_combination passes rows that it should
-- not, or the other way round.

{% set unique_rows %}
    (select 1 as a, 1 as b union all select 1 as a, 2 as b) as inline_rows
{% endset %}
{% set repeated_rows %}
    (select 1 as a, 1 as b union all select 1 as a, 1 as b) as inline_rows
{% endset %}
{% set repeated_nulls %}
    (select 1 as a, null as b union all select 1 as a, null as b) as inline_rows
{% endset %}
{% set repeated_days %}
    (
        select 1 as a, cast('2024-03-01' as date) as known_date
        union all select 1 as a, cast('2024-03-01' as date) as known_date
        union all select 1 as a, cast('2024-03-02' as date) as known_date
        union all select 1 as a, cast('2024-03-02' as date) as known_date
    ) as inline_rows
{% endset %}
{% set second_day = "(select cast('2024-03-02' as date)) as inline_day" %}

with

found as (

    select
        (
            select count(*)
            from ({{ test_unique_combination(unique_rows, ['a', 'b']) }}) as t
        ) as on_unique_rows,
        (
            select count(*)
            from ({{ test_unique_combination(unique_rows, ['a']) }}) as t
        ) as on_part_of_the_key,
        (
            select count(*)
            from ({{ test_unique_combination(repeated_rows, ['a', 'b']) }}) as t
        ) as on_repeated_rows,
        (
            select count(*)
            from (
                {{ test_unique_combination(repeated_nulls, ['a', 'b']) }}
            ) as t
        ) as on_repeated_nulls,
        (
            select count(*)
            from (
                {{ test_unique_combination(
                    repeated_days, ['a', 'known_date'], second_day
                ) }}
            ) as t
        ) as on_rows_of_a_run

)

select * from found
where not (
    on_unique_rows = 0
    and on_part_of_the_key = 1
    and on_repeated_rows = 1
    and on_repeated_nulls = 1
    and on_rows_of_a_run = {{ 1 if flags.WHICH == 'build' else 2 }}
)
