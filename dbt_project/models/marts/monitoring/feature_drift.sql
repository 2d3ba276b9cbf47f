{{ config(contract={'enforced': true}) }}

-- One row per run and feature: how far the day that is scored lies from what the run
-- was trained on.

with

runs as (

    select * from {{ ref('int_monitored_runs') }}

),

feature_values as (

    select * from {{ ref('int_feature_values') }}

),

importance as (

    select * from {{ source('ml', 'feature_importance') }}

),

periods as (

    select distinct trained_before
    from runs
    where trained_before is not null

),

tiles as (

    select
        trained_before,
        feature,
        number_value,
        ntile(10) over (
            partition by trained_before, feature
            order by number_value
        ) as tile
    from feature_values
    where
        trained_before is not null
        and number_value is not null

),

ends as (

    select
        trained_before,
        feature,
        {{ decile_ends('number_value') }}
    from tiles
    group by
        trained_before,
        feature

),

compared as (

    select
        trained_before,
        feature,
        family,
        student_id,
        course_id,
        number_value,
        text_value,
        0 as is_now
    from feature_values
    where trained_before is not null

    union all

    select
        periods.trained_before,
        feature_values.feature,
        feature_values.family,
        feature_values.student_id,
        feature_values.course_id,
        feature_values.number_value,
        feature_values.text_value,
        1 as is_now
    from feature_values
    cross join periods
    where feature_values.trained_before is null

),

with_tenths as (

    select
        compared.*,
        {{ decile_of('compared.number_value') }} as tenth
    from compared
    left join ends
        on
            compared.trained_before = ends.trained_before
            and compared.feature = ends.feature

),

-- Unknown is a bin of its own, as is every word.
binned as (

    select
        *,
        case
            when number_value is not null
                then cast(tenth as {{ dbt.type_string() }})
            when text_value is not null
                then {{ dbt.concat(["'='", 'text_value']) }}
            else 'unknown'
        end as bin
    from with_tenths

),

students as (

    select
        trained_before,
        feature,
        count(distinct case when is_now = 0 then student_id end) as students_then,
        count(distinct case when is_now = 1 then student_id end) as students_now
    from binned
    group by
        trained_before,
        feature

),

cells as (

    select
        trained_before,
        feature,
        family,
        bin,
        course_id,
        {{ count_where('is_now = 0') }} as points_then,
        {{ count_where('is_now = 1') }} as points_now
    from binned
    group by
        trained_before,
        feature,
        family,
        bin,
        course_id

),

courses as (

    select
        trained_before,
        feature,
        course_id,
        sum(points_now) as course_now
    from cells
    group by
        trained_before,
        feature,
        course_id

),

sizes as (

    select
        trained_before,
        feature,
        sum(course_now * course_now) as course_course,
        {{ count_where('course_now > 0') }} as courses_now
    from courses
    group by
        trained_before,
        feature

),

bins as (

    select
        cells.trained_before,
        cells.feature,
        cells.family,
        cells.bin,
        sum(cells.points_then) as points_then,
        sum(cells.points_now) as points_now,
        sum(cells.points_now * cells.points_now) as now_now,
        sum(cells.points_now * courses.course_now) as now_course
    from cells
    inner join courses
        on
            cells.trained_before = courses.trained_before
            and cells.feature = courses.feature
            and cells.course_id = courses.course_id
    group by
        cells.trained_before,
        cells.feature,
        cells.family,
        cells.bin

),

with_sizes as (

    select
        bins.*,
        sizes.course_course,
        sizes.courses_now,
        sum(bins.points_then) over (
            partition by bins.trained_before, bins.feature
        ) as all_then,
        sum(bins.points_now) over (
            partition by bins.trained_before, bins.feature
        ) as all_now,
        count(*) over (partition by bins.trained_before, bins.feature) as bins
    from bins
    inner join sizes
        on
            bins.trained_before = sizes.trained_before
            and bins.feature = sizes.feature

),

terms as (

    select
        *,
        {{ stability_term('points_then', 'points_now', 'all_then', 'all_now', 'bins') }}
            as term,
        {{ as_decimal('all_now * (' ~ clustered_variance(
            'points_now', 'all_now', 'now_now', 'now_course', 'course_course',
            'courses_now'
        ) ~ ')', 18, 9) }} as variance_by_course,
        {{ as_decimal(
            '(' ~ ratio('points_now', 'all_now') ~ ') * (1 - '
            ~ ratio('points_now', 'all_now') ~ ')', 18, 9
        ) }} as variance_by_point
    from with_sizes

),

measured as (

    select
        trained_before,
        feature,
        family,
        cast(max(bins) as {{ dbt.type_int() }}) as bins,
        cast(max(all_then) as {{ dbt.type_bigint() }}) as points_then,
        cast(max(all_now) as {{ dbt.type_bigint() }}) as points_now,
        {{ ratio("sum(case when bin = 'unknown' then points_then else 0 end)",
                 'max(all_then)') }} as missing_then,
        {{ ratio("sum(case when bin = 'unknown' then points_now else 0 end)",
                 'max(all_now)') }} as missing_now,
        case
            when max(all_then) > 0 and max(all_now) > 0
                then cast(sum(term) as {{ type_double() }})
        end as population_stability,
        -- What a whole course shares on a day is not as many observations as it has
        -- students: the mean design effect over the bins (Rao and Scott, JASA 76, 1981).
        greatest(
            1, coalesce({{ ratio('sum(variance_by_course)', 'sum(variance_by_point)') }}, 1)
        ) as design_effect
    from terms
    group by
        trained_before,
        feature,
        family

),

with_chance as (

    select
        measured.*,
        students.students_then,
        students.students_now,
        case
            when measured.population_stability is not null
                then {{ stability_by_chance(
                    'measured.bins',
                    'students.students_then',
                    '(students.students_now / measured.design_effect)'
                ) }}
        end as stability_by_chance
    from measured
    inner join students
        on
            measured.trained_before = students.trained_before
            and measured.feature = students.feature

),

feature_drift as (

    select
        runs.run_id,
        with_chance.feature,
        with_chance.family,
        with_chance.population_stability,
        with_chance.stability_by_chance,
        {{ stability_level(
            'with_chance.population_stability', 'with_chance.stability_by_chance'
        ) }} as level,
        with_chance.missing_then,
        with_chance.missing_now,
        with_chance.bins,
        with_chance.points_then,
        with_chance.points_now,
        with_chance.students_now,
        importance.importance_rank
    from with_chance
    inner join runs
        on with_chance.trained_before = runs.trained_before
    left join importance
        on
            runs.run_id = importance.run_id
            and with_chance.feature = importance.feature

)

select * from feature_drift
