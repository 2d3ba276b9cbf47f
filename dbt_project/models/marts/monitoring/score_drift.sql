{{ config(contract={'enforced': true}) }}

-- One row per run and day that it has scored: how far its scores lie from those of
-- its test period.

with

runs as (

    select * from {{ ref('int_monitored_runs') }}

),

scores_then as (

    select
        predictions.run_id,
        predictions.student_id,
        predictions.risk_score
    from {{ source('ml', 'evaluation_predictions') }} as predictions
    inner join runs
        on predictions.run_id = runs.run_id
    where not coalesce(predictions.contacted_before_due, false)

),

scores_now as (

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
    from scores_then

),

ends as (

    select
        run_id,
        {{ decile_ends('risk_score') }}
    from tiles
    group by run_id

),

placed_then as (

    select
        scores_then.run_id,
        {{ decile_of('scores_then.risk_score') }} as bin,
        count(*) as points,
        sum(cast(scores_then.risk_score as decimal(18, 9))) as scores
    from scores_then
    inner join ends
        on scores_then.run_id = ends.run_id
    group by
        scores_then.run_id,
        {{ decile_of('scores_then.risk_score') }}

),

placed_now as (

    select
        scores_now.run_id,
        scores_now.as_of_date,
        {{ decile_of('scores_now.risk_score') }} as bin,
        count(*) as points,
        sum(cast(scores_now.risk_score as decimal(18, 9))) as scores
    from scores_now
    inner join ends
        on scores_now.run_id = ends.run_id
    group by
        scores_now.run_id,
        scores_now.as_of_date,
        {{ decile_of('scores_now.risk_score') }}

),

days as (

    select distinct
        run_id,
        as_of_date
    from placed_now

),

-- Every bin is held against every day, also where one of the two has nobody in it.
sides as (

    select
        days.run_id,
        days.as_of_date,
        placed_then.bin,
        placed_then.points as points_then,
        placed_then.scores as scores_then,
        0 as points_now,
        0 as scores_now
    from days
    inner join placed_then
        on days.run_id = placed_then.run_id

    union all

    select
        run_id,
        as_of_date,
        bin,
        0 as points_then,
        0 as scores_then,
        points as points_now,
        scores as scores_now
    from placed_now

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

students_then as (

    select
        run_id,
        count(distinct student_id) as students
    from scores_then
    group by run_id

),

students_now as (

    select
        run_id,
        as_of_date,
        count(distinct student_id) as students
    from scores_now
    group by
        run_id,
        as_of_date

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
        students_now.students as students_now,
        {{ stability_by_chance(
            'measured.bins', 'students_then.students', 'students_now.students'
        ) }} as stability_by_chance
    from measured
    inner join students_then
        on measured.run_id = students_then.run_id
    inner join students_now
        on
            measured.run_id = students_now.run_id
            and measured.as_of_date = students_now.as_of_date

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
