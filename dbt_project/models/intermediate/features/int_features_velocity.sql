-- Is the student speeding up or slowing down within the window?

{% set window_days = setting('observation_window_days') %}
{% set half = window_days // 2 %}
{% set mean_day = (window_days - 1) / 2 %}
-- Sum of squared distances of the days 0 .. n-1 from their mean.
{% set spread = window_days * (window_days * window_days - 1) / 12 %}

with

observations as (

    select * from {{ ref('int_observations') }}

),

coverage as (

    select * from {{ ref('int_activity_coverage') }}

),

in_window as (

    select
        *,
        {{ dbt.datediff('activity_date', 'as_of_date', 'day') }}
            as days_ago
    from {{ ref('int_observed_activity') }}
    where is_in_window = 1

),

sums as (

    select
        student_id,
        course_run_id,
        as_of_date,
        sum(case
            when days_ago <= {{ half }} and study_facts > 0 then 1 else 0
        end) as late_active_days,
        sum(case
            when days_ago > {{ window_days - half }} and study_facts > 0 then 1
            else 0
        end) as early_active_days,
        sum(case when days_ago <= {{ half }} then study_facts else 0 end)
            as late_facts,
        sum(case
            when days_ago > {{ window_days - half }} then study_facts else 0
        end) as early_facts,
        sum(study_facts) as facts,
        sum(study_facts * ({{ window_days }} - days_ago)) as facts_by_day
    from in_window
    group by
        student_id,
        course_run_id,
        as_of_date

),

features as (

    select
        observations.student_id,
        observations.course_run_id,
        observations.as_of_date,
        {{ if_recorded(
            'sums.late_active_days - sums.early_active_days', 'study'
        ) }} as velocity_active_days_change,
        {{ ratio(
            'sums.late_facts - sums.early_facts',
            'sums.late_facts + sums.early_facts'
        ) }} as velocity_activity_change,
        case
            when coverage.study_known_from < observations.as_of_date
                then (
                    {{ as_number('coalesce(sums.facts_by_day, 0)') }}
                    - {{ as_number('coalesce(sums.facts, 0)') }} * {{ mean_day }}
                ) / {{ spread }}
        end as velocity_activity_slope
    from observations
    left join sums
        on
            observations.student_id = sums.student_id
            and observations.course_run_id = sums.course_run_id
            and observations.as_of_date = sums.as_of_date
    left join coverage
        on observations.activity_scope_id = coverage.activity_scope_id

)

select * from features
