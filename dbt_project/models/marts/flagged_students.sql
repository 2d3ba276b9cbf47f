{{ config(contract={'enforced': true}) }}

{#
    A threshold flags everybody at or above it; otherwise the capacity decides.
    Either way a part of the work goes to students in whom a model has nothing
    to see, because they have not studied at all.
#}
{% set by_threshold = setting('prediction_threshold') is not none
    or setting('flag_capacity') is none %}
{% set capacity = setting('flag_capacity') or 0 %}
{% set kept_for_dormant = (capacity * var('dormant_capacity_share')) | int %}

with

candidates as (

    select * from {{ ref('int_flag_candidates') }}

),

reasons as (

    select
        *,
        row_number() over (
            partition by
                run_id, student_id, course_id, assessment_id, as_of_date
            order by reason_rank
        ) as actionable_rank
    from {{ source('ml', 'score_reasons') }}
    where is_actionable

),

reasons_in_columns as (

    select
        run_id,
        student_id,
        course_id,
        assessment_id,
        as_of_date,
        max(case when actionable_rank = 1 then sentence end) as reason_1,
        max(case when actionable_rank = 1 then sentence_student end)
            as student_reason_1,
        max(case when actionable_rank = 2 then sentence end) as reason_2,
        max(case when actionable_rank = 2 then sentence_student end)
            as student_reason_2,
        max(case when actionable_rank = 3 then sentence end) as reason_3,
        max(case when actionable_rank = 3 then sentence_student end)
            as student_reason_3
    from reasons
    group by
        run_id,
        student_id,
        course_id,
        assessment_id,
        as_of_date

),

courses as (

    select * from {{ canonical('courses') }}

),

assessments as (

    select
        assessment_id,
        max(title) as title
    from {{ canonical('assessments') }}
    group by assessment_id

),

weak_topics as (

    select * from {{ ref('int_weak_topics') }}

),

with_slots as (

    select
        *,
        least(
            sum(is_dormant) over (), {{ kept_for_dormant }}
        ) as slots_for_dormant
    from candidates

),

first_pass as (

    select
        *,
        case
            when
                is_eligible = 1
                {% if not by_threshold %}
                and candidate_rank <= {{ capacity }} - slots_for_dormant
                {% endif %}
                then 1
            else 0
        end as is_in_first_pass
    from with_slots

),

dormant_ranked as (

    select
        *,
        row_number() over (
            partition by is_in_first_pass, is_dormant
            order by lead_days, candidate_rank
        ) as rank_within
    from first_pass

),

prioritised as (

    select
        *,
        case
            when is_in_first_pass = 1 then 0
            when is_dormant = 1 and rank_within <= slots_for_dormant then 1
            when is_eligible = 1 then 2
            else 3
        end as priority
    from dormant_ranked

),

flags as (

    select
        *,
        case
            when priority in (1, 3) then 'dormant'
            when run_id is null then 'rule'
            else '{{ 'threshold' if by_threshold else 'capacity' }}'
        end as flag_policy,
        row_number() over (order by priority, candidate_rank) as flag_rank
    from prioritised

),

flagged_students as (

    select
        flags.student_id,
        flags.course_id,
        flags.course_run_id,
        courses.title as course_title,
        flags.assessment_id,
        assessments.title as assessment_title,
        targets.assessment_kind,
        flags.as_of_date,
        flags.due_at,
        flags.lead_days,
        flags.risk_score,
        flags.risk_band,
        flags.confidence,
        flags.engagement_zone,
        flags.flag_policy,
        cast(flags.flag_rank as {{ dbt.type_int() }}) as flag_rank,
        coalesce(
            reasons_in_columns.reason_1,
            case
                when flags.flag_policy = 'dormant'
                    then 'Has not studied at all since enrolling'
                when flags.flag_policy = 'rule'
                    then {{ dbt.concat([
                        "'Has missed '",
                        'cast(cast(flags.missed as ' ~ dbt.type_int()
                        ~ ') as ' ~ dbt.type_string() ~ ')',
                        "' of the assessments due so far'",
                    ]) }}
            end
        ) as reason_1,
        reasons_in_columns.reason_2,
        reasons_in_columns.reason_3,
        reasons_in_columns.student_reason_1,
        reasons_in_columns.student_reason_2,
        reasons_in_columns.student_reason_3,
        weak_topics.weak_topics,
        flags.run_id
    from flags
    inner join courses
        on flags.course_id = courses.course_id
    inner join assessments
        on flags.assessment_id = assessments.assessment_id
    left join {{ ref('student_targets') }} as targets
        on
            flags.student_id = targets.student_id
            and flags.course_id = targets.course_id
            and flags.assessment_id = targets.assessment_id
            and flags.as_of_date = targets.as_of_date
    left join reasons_in_columns
        on
            flags.run_id = reasons_in_columns.run_id
            and flags.student_id = reasons_in_columns.student_id
            and flags.course_id = reasons_in_columns.course_id
            and flags.assessment_id = reasons_in_columns.assessment_id
            and flags.as_of_date = reasons_in_columns.as_of_date
    left join weak_topics
        on
            flags.student_id = weak_topics.student_id
            and flags.course_run_id = weak_topics.course_run_id
            and flags.as_of_date = weak_topics.as_of_date
    where
    {% if not by_threshold %}
        flags.flag_rank <= {{ capacity }}
    {% elif capacity %}
        flags.priority <= 1
    {% else %}
        1 = 1
    {% endif %}

)

select * from flagged_students
