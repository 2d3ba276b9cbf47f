-- Is the student speeding up or slowing down within the window?

{% set window_days = setting('observation_window_days') %}
{% set mean_day = (window_days - 1) / 2 %}
-- Facts are added up times the number of their day; the window's first is day 0.
{% set first_day = '(' ~ dbt.datediff(
    "cast('1900-01-01' as date)", 'observations.window_start', 'day'
) ~ ')' %}
-- Sum of squared distances of the days 0 .. n-1 from their mean.
{% set spread = window_days * (window_days * window_days - 1) / 12 %}

with

observations as (

    select * from {{ ref('int_observations') }}

),

coverage as (

    select * from {{ ref('int_activity_coverage') }}

),

sums as (

    select * from {{ ref('int_observed_sums') }}

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
            'sums.late_study_facts - sums.early_study_facts',
            'sums.late_study_facts + sums.early_study_facts'
        ) }} as velocity_activity_change,
        case
            when coverage.study_known_from < observations.as_of_date
                then (
                    {{ as_number(
                        'sums.window_study_facts_by_day - cast(sums.window_study_facts'
                        ~ ' as ' ~ dbt.type_bigint() ~ ') * ' ~ first_day
                    ) }}
                    - {{ as_number('sums.window_study_facts') }} * {{ mean_day }}
                ) / {{ spread }}
        end as velocity_activity_slope
    from observations
    inner join sums
        on
            observations.enrollment_number = sums.enrollment_number
            and observations.as_of_date = sums.as_of_date
    left join coverage
        on observations.activity_scope_id = coverage.activity_scope_id

)

select * from features
