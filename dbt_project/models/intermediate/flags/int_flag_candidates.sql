{% set threshold = setting('prediction_threshold') %}

-- Who could be flagged, and by what: one row per student, with the sitting that
-- worries most.

with

scores as (

    select * from {{ ref('int_scores_of_day') }}

),

targets as (

    select * from {{ ref('student_targets') }}

),

features as (

    select * from {{ ref('student_features_14d') }}

),

zones as (

    select * from {{ ref('int_engagement_zones') }}

),

registry as (

    select
        count(*) as runs,
        coalesce(sum(case when status = 'champion' then 1 else 0 end), 0)
            as champions
    from {{ source('ml', 'model_runs') }}
    where
        source_system = '{{ setting('source_system') }}'
        and target_definition = '{{ setting('target_definition') }}'

),

-- Every run so far was refused: the rule has to do, and gives no score.
rule_points as (

    select targets.*
    from targets
    cross join registry
    where
        targets.is_scoring_point
        and registry.runs > 0
        and registry.champions = 0

),

points as (

    select
        student_id,
        course_id,
        assessment_id,
        as_of_date,
        course_run_id,
        due_at,
        lead_days,
        risk_score,
        risk_band,
        confidence,
        run_id
    from scores

    union all

    select
        student_id,
        course_id,
        assessment_id,
        as_of_date,
        course_run_id,
        due_at,
        lead_days,
        cast(null as {{ type_double() }}) as risk_score,
        cast(null as {{ dbt.type_string() }}) as risk_band,
        cast(null as {{ type_double() }}) as confidence,
        cast(null as {{ dbt.type_string() }}) as run_id
    from rule_points

),

described as (

    select
        points.*,
        zones.engagement_zone,
        coalesce(points.risk_score, 0) as sort_score,
        coalesce(features.record_assessments_missed, 0) as missed,
        coalesce(features.record_missed_share, 0) as missed_share,
        case
            when zones.engagement_zone = 'dormant' then 1 else 0
        end as is_dormant,
        case
            when points.risk_score is null
                then case
                    when features.record_assessments_missed > 0 then 1 else 0
                end
            {% if threshold is not none %}
            when points.risk_score < {{ threshold }} then 0
            {% endif %}
            when points.confidence < {{ setting('confidence_threshold') or 0 }}
                then 0
            else 1
        end as is_eligible
    from points
    left join features
        on
            points.student_id = features.student_id
            and points.course_id = features.course_id
            and points.assessment_id = features.assessment_id
            and points.as_of_date = features.as_of_date
    left join zones
        on
            points.student_id = zones.student_id
            and points.course_id = zones.course_id
            and points.assessment_id = zones.assessment_id
            and points.as_of_date = zones.as_of_date

),

-- Ties are broken on record: who has missed more, then who is due sooner.
ranked as (

    select
        *,
        row_number() over (
            partition by student_id
            order by
                is_eligible desc,
                sort_score desc,
                missed desc,
                missed_share desc,
                lead_days,
                course_id,
                assessment_id
        ) as sitting_rank
    from described
    where
        is_eligible = 1
        or is_dormant = 1

),

one_per_student as (

    select
        *,
        row_number() over (
            order by
                is_eligible desc,
                sort_score desc,
                missed desc,
                missed_share desc,
                lead_days,
                student_id
        ) as candidate_rank
    from ranked
    where sitting_rank = 1

)

select * from one_per_student
