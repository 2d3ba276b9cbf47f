{#
  What: count_where counts what is true, not what is null, and is zero without rows
  that match; ratio is a double and null where there is nothing to divide by;
  if_recorded is zero where nothing happened and null where nobody could say;
  count_flagged counts different values, also where there are more than there are bits,
  and its flags are given to the most used, of all groups or of each.
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

-- Used once or twice each, in two groups; and a group of nulls.
many_values as (

    {% set numbers = range(70) | list -%}
    {{ rows_of(numbers, 'number') }}

),

used as (

    select
        number as value,
        number % 2 as parity
    from many_values

    union all

    select
        number as value,
        1 - number % 2 as parity
    from many_values
    where number >= 40

    union all

    select
        null as value,
        2 as parity

),

uses as (

    select
        value,
        count(*) as uses
    from used
    where value is not null
    group by value

),

flagged as (

    {{ flag_values('uses', 'value') }}

),

different as (

    select
        used.parity,
        count(distinct used.value) as held,
        {{ count_flagged('flagged.flag', 'used.value') }} as flagged
    from used
    left join flagged on used.value = flagged.value
    group by used.parity

),

uses_of_parity as (

    select
        parity,
        value,
        count(*) as uses
    from used
    where value is not null
    group by
        parity,
        value

),

flagged_of_parity as (

    {{ flag_values('uses_of_parity', 'value', within=['parity']) }}

),

of_parity as (

    select
        count(distinct flag) as flags_within,
        {{ count_where('flag is null') }} as left_out_within
    from flagged_of_parity

),

of_different as (

    select
        {{ count_where('held = flagged') }} as equal_groups,
        max(flagged) as most,
        min(flagged) as fewest
    from different

),

of_flags as (

    select
        count(distinct flag) as flags,
        {{ count_where('value >= 40 and flag is null') }} as left_out
    from flagged

),

found as (

    select
        counted.*,
        recorded.*,
        of_different.*,
        of_flags.*,
        of_parity.*
    from counted
    cross join recorded
    cross join of_different
    cross join of_flags
    cross join of_parity

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
        and equal_groups = 3
        and most = 50
        and fewest = 0
        and flags = 63
        and left_out = 0
        and flags_within = 50
        and left_out_within = 0
    )

)

select * from wrong
