{{ config(contract={'enforced': true}) }}

-- One row per run and day that it has scored: how far its scores lie from those of
-- its test period.

with

runs as (

    select * from {{ ref('int_monitored_runs') }}

),

-- Those of the test period have no day.
scores as (

    select
        predictions.run_id,
        cast(null as date) as as_of_date,
        predictions.student_id,
        predictions.risk_score
    from {{ source('ml', 'evaluation_predictions') }} as predictions
    inner join runs
        on predictions.run_id = runs.run_id
    where not coalesce(predictions.contacted_before_due, false)

    union all

    select
        scores.run_id,
        scores.as_of_date,
        scores.student_id,
        scores.risk_score
    from {{ source('ml', 'student_scores') }} as scores
    inner join runs
        on scores.run_id = runs.run_id

),

tiles as (

    select
        run_id,
        risk_score,
        ntile(10) over (partition by run_id order by risk_score) as tile
    from scores
    where as_of_date is null

),

ends as (

    select
        run_id,
        {{ decile_ends('risk_score') }}
    from tiles
    group by run_id

),

placed as (

    select
        scores.run_id,
        scores.as_of_date,
        {{ decile_of('scores.risk_score') }} as bin,
        count(*) as points,
        sum({{ as_decimal('scores.risk_score', 18, 9) }}) as scores
    from scores
    inner join ends
        on scores.run_id = ends.run_id
    group by
        scores.run_id,
        scores.as_of_date,
        {{ decile_of('scores.risk_score') }}

),

days as (

    select
        run_id,
        as_of_date,
        count(distinct student_id) as students
    from scores
    group by
        run_id,
        as_of_date

),

-- Every bin is held against every day, also where one of the two has nobody in it.
sides as (

    select
        days.run_id,
        days.as_of_date,
        placed.bin,
        placed.points as points_then,
        placed.scores as scores_then,
        0 as points_now,
        0 as scores_now
    from days
    inner join placed
        on days.run_id = placed.run_id
    where
        days.as_of_date is not null
        and placed.as_of_date is null

    union all

    select
        run_id,
        as_of_date,
        bin,
        0 as points_then,
        0 as scores_then,
        points as points_now,
        scores as scores_now
    from placed
    where as_of_date is not null

),

bins as (

    select
        run_id,
        as_of_date,
        bin,
        cast(sum(points_then) as {{ dbt.type_bigint() }}) as points_then,
        cast(sum(points_now) as {{ dbt.type_bigint() }}) as points_now,
        sum(scores_then) as scores_then,
        sum(scores_now) as scores_now
    from sides
    group by
        run_id,
        as_of_date,
        bin

),

with_sizes as (

    select
        *,
        sum(points_then) over (partition by run_id, as_of_date) as all_then,
        sum(points_now) over (partition by run_id, as_of_date) as all_now,
        count(*) over (partition by run_id, as_of_date) as bins
    from bins

),

terms as (

    select
        *,
        {{ stability_term('points_then', 'points_now', 'all_then', 'all_now', 'bins') }}
            as term
    from with_sizes

),

measured as (

    select
        run_id,
        as_of_date,
        max(bins) as bins,
        cast(sum(points_then) as {{ dbt.type_bigint() }}) as points_then,
        cast(sum(points_now) as {{ dbt.type_bigint() }}) as points_now,
        {{ ratio('sum(scores_then)', 'sum(points_then)') }} as mean_score_then,
        {{ ratio('sum(scores_now)', 'sum(points_now)') }} as mean_score_now,
        cast(sum(term) as {{ type_double() }}) as population_stability
    from terms
    group by
        run_id,
        as_of_date

),

with_chance as (

    select
        measured.*,
        day.students as students_now,
        {{ stability_by_chance(
            'measured.bins', 'test_period.students', 'day.students'
        ) }} as stability_by_chance
    from measured
    inner join days as test_period
        on
            measured.run_id = test_period.run_id
            and test_period.as_of_date is null
    inner join days as day
        on
            measured.run_id = day.run_id
            and measured.as_of_date = day.as_of_date

),

score_drift as (

    select
        run_id,
        as_of_date,
        population_stability,
        stability_by_chance,
        {{ stability_level('population_stability', 'stability_by_chance') }} as level,
        mean_score_then,
        mean_score_now,
        points_then,
        points_now,
        students_now
    from with_chance

)

select * from score_drift
