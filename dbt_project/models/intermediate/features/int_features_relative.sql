-- Where does the student stand among all enrollments open in the same run that
-- day? Share of the others strictly below; null below a minimum of peers. Who is
-- past the end of validity is compared with those who are open, and counts for
-- nobody else.

{% set measures = {
    'active_days': 'to_date.to_date_active_days',
    'recent_activity': 'recent.window_active_days',
    'share_of_course': 'to_date.to_date_share_of_course',
    'mean_score': 'record.record_mean_score',
    'missed_share': 'record.record_missed_share',
    'days_early': 'record.record_mean_days_early',
} %}

with

observations as (

    select * from {{ ref('int_observations') }}

),

recent as (

    select * from {{ ref('int_features_window') }}

),

to_date as (

    select * from {{ ref('int_features_to_date') }}

),

record as (

    select * from {{ ref('int_features_record') }}

),

measured as (

    select
        observations.student_id,
        observations.course_run_id,
        observations.as_of_date,
        observations.peer_group_id,
        observations.is_open,
        {% for name, column in measures.items() %}
        {{ column }} as {{ name }},
        {% endfor %}
        record.record_assessments_due as due,
        record.record_assessments_missed as missed
    from observations
    inner join recent
        on
            observations.student_id = recent.student_id
            and observations.course_run_id = recent.course_run_id
            and observations.as_of_date = recent.as_of_date
    inner join to_date
        on
            observations.student_id = to_date.student_id
            and observations.course_run_id = to_date.course_run_id
            and observations.as_of_date = to_date.as_of_date
    inner join record
        on
            observations.student_id = record.student_id
            and observations.course_run_id = record.course_run_id
            and observations.as_of_date = record.as_of_date

),

ranked as (

    select
        student_id,
        course_run_id,
        as_of_date,
        is_open,
        {% for name in measures %}
        {{ name }},
        count(case when is_open = 1 then {{ name }} end) over (
            partition by peer_group_id, as_of_date
        ) as {{ name }}_peers,
        -- Strictly below are, of who is open, all before him but those who are not.
        case
            when is_open = 1
                then
                    rank() over by_{{ name }} - 1 - sum(1 - is_open) over by_{{ name }}
            else sum(is_open) over by_{{ name }}
        end as {{ name }}_below,
        {% endfor %}
        -- Whole numbers, whose sums do not depend on the order of the rows.
        sum(is_open * missed) over (partition by peer_group_id, as_of_date)
        / nullif(
            sum(is_open * due) over (partition by peer_group_id, as_of_date), 0
        ) as run_missed_share
    from measured
    -- Who is not open comes before who is and has the same value, so that one order
    -- tells of both how many of the open ones are below.
    window
    {% for name in measures %}
        by_{{ name }} as (
            partition by peer_group_id, as_of_date
            order by {{ name }} nulls last, is_open
        ){% if not loop.last %},{% endif %}

    {% endfor %}

),

features as (

    select
        student_id,
        course_run_id,
        as_of_date,
        {% for name in measures %}
        case
            when
                {{ name }} is not null
                and {{ name }}_peers >= {{ var('min_peers') }}
                then {{ ratio(
                    name ~ '_below', name ~ '_peers - is_open'
                ) }}
        end as relative_{{ name }}_percentile,
        {% endfor %}
        case
            when missed_share_peers >= {{ var('min_peers') }}
                then {{ as_number('run_missed_share') }}
        end as relative_run_missed_share
    from ranked

)

select * from features
