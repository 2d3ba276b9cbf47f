{{ config(contract={'enforced': true}) }}
{% set smallest = var('fairness_min_group') %}
{% set rates = [
    'flag_rate', 'false_positive_rate', 'false_negative_rate', 'precision',
    'calibration_gap',
] %}

-- One row per run, lead and group of students: how the model treats them.

with

rates as (

    select * from {{ ref('int_fairness_rates') }}

),

in_columns as (

    select
        run_id,
        lead_days,
        attribute,
        value,
        {%- for rate in rates %}
        max(case when rate = '{{ rate }}' then estimate end) as {{ rate }},
        max(case when rate = '{{ rate }}' then low end) as {{ rate }}_low,
        max(case when rate = '{{ rate }}' then high end) as {{ rate }}_high,
        {%- endfor %}
        max(case when rate = 'flag_rate' then cases end) as points,
        max(students) as students,
        max(case when rate = 'false_negative_rate' then cases end) as positives
    from rates
    group by
        run_id,
        lead_days,
        attribute,
        value

),

with_notes as (

    select
        *,
        case
            when students < {{ smallest }}
                then '; fewer than {{ smallest }} students: not measured'
            else {{ dbt.concat([
                "case when positives = 0"
                ~ " then '; nobody failed: false negative rate not defined'"
                ~ " else '' end",
                "case when positives = points"
                ~ " then '; nobody passed: false positive rate not defined'"
                ~ " else '' end",
                "case when precision is null"
                ~ " then '; nobody flagged: precision not defined' else '' end",
            ]) }}
        end as remarks
    from in_columns

),

fairness_groups as (

    select
        run_id,
        lead_days,
        attribute,
        value,
        points,
        students,
        -- In a handful of students an outcome would be somebody's outcome.
        case when students >= {{ smallest }} then positives end as positives,
        {%- for rate in rates %}
        {{ rate }},
        {{ rate }}_low,
        {{ rate }}_high,
        {%- endfor %}
        nullif(substring(remarks, 3), '') as note
    from with_notes

)

select * from fairness_groups
