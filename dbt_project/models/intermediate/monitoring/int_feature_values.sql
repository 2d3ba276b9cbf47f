{% set features = model_features() %}

-- The features of the points that drift is measured on, one row per point and
-- feature: for each training period its points, and once those of the day that is
-- scored. No more than drift_sample_points of each, evenly spaced in key order.

with

runs as (

    select * from {{ ref('int_monitored_runs') }}

),

targets as (

    select * from {{ ref('student_targets') }}

),

features as (

    select * from {{ ref('student_features_14d') }}

),

names as (

    {% for feature in features %}
    select
        {{ loop.index }} as number,
        '{{ feature.name }}' as feature,
        '{{ feature.family }}' as family
    {% if not loop.last %}union all{% endif %}
    {% else %}
    select
        0 as number,
        'none' as feature,
        'none' as family
    {% endfor %}

),

periods as (

    select distinct trained_before
    from runs
    where trained_before is not null

),

points as (

    select
        periods.trained_before,
        targets.student_id,
        targets.course_id,
        targets.assessment_id,
        targets.as_of_date
    from targets
    inner join periods
        on targets.label_known_at < periods.trained_before
    where
        targets.is_training_point
        and targets.label_status = 'matured'

    union all

    select
        cast(null as date) as trained_before,
        targets.student_id,
        targets.course_id,
        targets.assessment_id,
        targets.as_of_date
    from targets
    cross join (select max(trained_before) as newest from periods) as trained
    where
        targets.is_scoring_point
        -- Without a run there is nothing to compare with.
        and trained.newest is not null

),

numbered as (

    select
        *,
        row_number() over (
            partition by trained_before
            order by student_id, course_id, assessment_id, as_of_date
        ) as number,
        count(*) over (partition by trained_before) as points
    from points

),

sampled as (

    select *
    from numbered
    where
        mod(
            number - 1,
            cast(ceil(points / {{ as_number(var('drift_sample_points')) }}) as bigint)
        ) = 0

),

feature_values as (

    select
        sampled.trained_before,
        sampled.student_id,
        sampled.course_id,
        sampled.assessment_id,
        sampled.as_of_date,
        names.feature,
        names.family,
        case names.number
            when 0 then null
            {% for feature in features if not feature.is_text %}
            when {{ features.index(feature) + 1 }}
                then {{ as_number('features.' ~ feature.name) }}
            {% endfor %}
        end as number_value,
        case names.number
            when 0 then null
            {% for feature in features if feature.is_text %}
            when {{ features.index(feature) + 1 }}
                then cast(features.{{ feature.name }} as {{ dbt.type_string() }})
            {% endfor %}
        end as text_value
    from sampled
    inner join features
        on
            sampled.student_id = features.student_id
            and sampled.course_id = features.course_id
            and sampled.assessment_id = features.assessment_id
            and sampled.as_of_date = features.as_of_date
    cross join names

)

select * from feature_values
