{#
  What: add_days gives a date, whole days away, for dates and timestamps, columns and
  literals, across the ends of months and leap days; weekday is 0 on Mondays to 6 on
  Sundays, of dates and timestamps; rows_of makes one row per item.
  When it matters: every as_of_date and window begins with add_days. On some engines
  a date plus days is a timestamp, which equals no date.
  How to fix: see macros/days.sql.
#}

{%- set cases = [
    ("cast('2024-03-01' as date)", -1, '2024-02-29'),
    ("cast('2023-03-01' as date)", -1, '2023-02-28'),
    ("cast('2024-12-31' as date)", 1, '2025-01-01'),
    ("cast('2024-06-15' as date)", '-14', '2024-06-01'),
    ("cast('2024-06-15' as date)", 0, '2024-06-15'),
    ("cast('2024-06-15 23:59:59' as timestamp)", 1, '2024-06-16'),
    ("cast('2024-06-15 00:00:00' as timestamp)", -1, '2024-06-14'),
] %}
{%- set weekdays = [
    ("cast('1900-01-01' as date)", '0'),
    ("cast('2024-03-10' as date)", '6'),
    ("cast('2024-03-11' as date)", '0'),
    ("cast('2024-03-16 23:59:59' as timestamp)", '5'),
    ("cast('2024-03-17 00:00:00' as timestamp)", '6'),
] %}

with

cases as (

    {%- for day, days, expected in cases %}
    select
        'add_days, case {{ loop.index }}' as tested,
        cast({{ add_days(day, days) }} as {{ dbt.type_string() }}) as actual,
        '{{ expected }}' as expected

    union all
    {% endfor %}
    {%- for day, expected in weekdays %}
    select
        'weekday, case {{ loop.index }}' as tested,
        cast({{ weekday(day) }} as {{ dbt.type_string() }}) as actual,
        '{{ expected }}' as expected

    union all
    {% endfor %}
    select
        'add_days with a column' as tested,
        cast({{ add_days('day_before', '-days') }} as {{ dbt.type_string() }})
            as actual,
        '2024-02-28' as expected
    from (
        select
            cast('2024-03-01' as date) as day_before,
            2 as days
    ) as inline_rows

    union all

    select
        'rows_of' as tested,
        cast(count(*) * 100 + sum(item) as {{ dbt.type_string() }}) as actual,
        '335' as expected
    from ({{ rows_of([28, 7, 0], 'item') }}) as inline_rows

),

wrong as (

    select * from cases
    where coalesce(actual <> expected, true)

)

select * from wrong
