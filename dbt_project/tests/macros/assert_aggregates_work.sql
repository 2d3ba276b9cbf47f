{#
  What: count_where counts what is true, not what is null, and is zero without rows
  that match; ratio is a double and null where there is nothing to divide by;
  if_recorded is zero where nothing happened and null where nobody could say.
  When it matters: whole numbers divided by whole numbers are whole on some engines,
  which makes every share zero or one; an unknown taken for a zero reads as a student
  who does nothing.
  How to fix: see macros/aggregates.sql.
#}

with

facts as (

    select
        1 as flag,
        10 as amount

    union all

    select
        0 as flag,
        20 as amount

    union all

    select
        null as flag,
        30 as amount

),

coverage as (

    select
        cast('2024-03-14' as date) as study_known_from,
        cast('2024-03-15' as date) as quiz_known_from,
        cast(null as date) as minutes_known_from

),

observations as (

    select cast('2024-03-15' as date) as as_of_date

),

counted as (

    select
        {{ count_where('flag = 1') }} as matching,
        {{ count_where('flag = 9') }} as not_matching,
        {{ ratio('count(flag)', 'count(*)') }} as two_thirds,
        {{ ratio('sum(flag)', 'sum(flag) - 1') }} as by_zero,
        {{ ratio('sum(flag)', 'null') }} as by_null
    from facts

),

recorded as (

    select
        {{ if_recorded('3', 'study') }} as from_the_day_before,
        {{ if_recorded('null', 'study') }} as nothing_happened,
        {{ if_recorded('3', 'quiz') }} as from_the_day_itself,
        {{ if_recorded('3', 'minutes') }} as never_recorded,
        {{ as_number('1') }} / 2 as half
    from observations
    cross join coverage

),

found as (

    select
        counted.*,
        recorded.*
    from counted
    cross join recorded

),

wrong as (

    select * from found
    where not (
        matching = 1
        and not_matching = 0
        and abs(two_thirds - 0.666666666666666) < 0.000000000000001
        and by_zero is null
        and by_null is null
        and from_the_day_before = 3
        and nothing_happened = 0
        and from_the_day_itself is null
        and never_recorded is null
        and half = 0.5
    )

)

select * from wrong
