{#
  What: the population stability index on known numbers, what of it chance explains,
  and its levels; and the day under a key of a JSON text.
  When it matters: an index that is wrong warns about nothing, or about everything.
  How to fix: see macros/monitoring.sql.
#}

with

-- 50, 30, 20 before and 20, 30, 50 now, of 100 each: with half a point in each of the
-- three bins p = 50.5, 30.5, 20.5 of 101.5, and two times 30 / 101.5 * ln(50.5 / 20.5).
bins as (

    select
        50 as points_then,
        20 as points_now

    union all

    select
        30 as points_then,
        30 as points_now

    union all

    select
        20 as points_then,
        50 as points_now

),

terms as (

    select
        {{ stability_term('points_then', 'points_now', '100', '100', '3') }} as term
    from bins

),

stability as (

    select sum(term) as stability
    from terms

),

settings as (

    select '{"calibration_from": "2024-01-05", "leads": "28,21"}' as settings

),

found as (

    select
        stability.stability,
        {{ stability_term('0', '0', '100', '100', '3') }} as nobody_on_either_side,
        -- 99.99 % point of chi-square with 9 degrees of freedom: 33.72.
        {{ stability_by_chance('10', '1000', '200') }} as by_chance,
        {{ stability_by_chance('10', '1000', '0') }} as by_chance_of_nobody,
        {{ stability_level('0.3', '0.1') }} as beyond_chance,
        {{ stability_level('0.3', '0.4') }} as within_chance,
        {{ stability_level('0.12', '0.1') }} as moderate,
        {{ stability_level('0.05', '0.01') }} as small,
        {{ stability_level('cast(null as double)', '0.01') }} as nothing_compared,
        {{ json_day('settings', 'calibration_from') }} as under_the_key,
        {{ json_day('settings', 'refit_before') }} as no_such_key
    from stability
    cross join settings

)

select * from found
where not (
    abs(stability - 2 * 30 / 101.5e0 * ln(50.5e0 / 20.5e0)) < 0.00000001
    and nobody_on_either_side = 0
    and abs(by_chance - 33.72 * (1 / 1000e0 + 1 / 200e0)) < 0.003
    and by_chance_of_nobody is null
    and beyond_chance = 'alert'
    and within_chance = 'none'
    and moderate = 'watch'
    and small = 'none'
    and nothing_compared = 'unknown'
    and under_the_key = cast('2024-01-05' as date)
    and no_such_key is null
)
