-- Which questions are asked: one row per student, assessment and day on which
-- it makes sense to ask whether the student will fail it, from what was known at
-- the start of that day and nothing else.

with

due_versions as (

    select * from {{ ref('int_due_versions') }}
    where kind in ({{ target_kinds() }})

),

sittings as (

    select * from {{ ref('int_sittings') }}

),

enrollments as (

    select * from {{ ref('int_enrollments') }}

),

calendar as (

    select * from {{ ref('int_calendar') }}

),

leads as (

    {{ rows_of(setting('prediction_leads'), 'lead_days') }}

),

-- At exactly each lead before the due day.
training_candidates as (

    select
        due_versions.*,
        {{ add_days(
            'cast(due_versions.due_at as date)', '-leads.lead_days'
        ) }} as as_of_date
    from due_versions
    cross join leads
    where due_versions.due_at is not null

),

-- A self-paced assessment is asked about on the day it is sat.
open_training_candidates as (

    select
        due_versions.*,
        cast(sittings.submitted_at as date) as as_of_date
    from due_versions
    inner join sittings
        on
            due_versions.student_id = sittings.student_id
            and due_versions.course_run_id = sittings.course_run_id
            and due_versions.assessment_id = sittings.assessment_id
    where
        due_versions.due_at is null
        and sittings.submitted_at is not null

),

scoring_candidates as (

    select
        due_versions.*,
        calendar.as_of_date
    from due_versions
    cross join calendar
    where
        due_versions.due_at is null
        or (
            cast(due_versions.due_at as date) >= calendar.as_of_date
            and cast(due_versions.due_at as date) <= {{ add_days(
                'calendar.as_of_date', setting('prediction_leads') | first
            ) }}
        )

),

candidates as (

    select
        *,
        1 as is_training,
        0 as is_scoring
    from training_candidates

    union all

    select
        *,
        1 as is_training,
        0 as is_scoring
    from open_training_candidates

    union all

    select
        *,
        0 as is_training,
        1 as is_scoring
    from scoring_candidates

),

-- What was known about the due time at the start of the day.
known as (

    select
        candidates.student_id,
        candidates.course_id,
        candidates.course_run_id,
        candidates.assessment_id,
        candidates.as_of_date,
        candidates.began_at,
        candidates.kind,
        candidates.due_at,
        candidates.version_number,
        max(candidates.is_training) as is_training,
        max(candidates.is_scoring) as is_scoring
    from candidates
    cross join calendar
    where
        -- A day that the data does not reach yet cannot be stood on.
        (candidates.is_scoring = 1 or candidates.as_of_date <= calendar.data_until)
        and candidates.began_at < candidates.as_of_date
        and (
            candidates.known_from is null
            or candidates.known_from < candidates.as_of_date
        )
        and (
            candidates.known_until is null
            or candidates.known_until >= candidates.as_of_date
        )
    group by
        candidates.student_id,
        candidates.course_id,
        candidates.course_run_id,
        candidates.assessment_id,
        candidates.as_of_date,
        candidates.began_at,
        candidates.kind,
        candidates.due_at,
        candidates.version_number

),

-- A later enrollment that meets the assessment takes it over, whatever its own
-- due time.
ownership as (

    select
        student_id,
        course_run_id,
        assessment_id,
        min(greatest(began_at, coalesce(known_from, began_at))) over (
            partition by student_id, course_id, assessment_id
            order by began_at, course_run_id
            rows between 1 following and unbounded following
        ) as owned_until
    from due_versions
    where version_number = 1

),

-- The latest enrollment begun before the day owns the sitting.
owned as (

    select known.*
    from known
    inner join ownership
        on
            known.student_id = ownership.student_id
            and known.course_run_id = ownership.course_run_id
            and known.assessment_id = ownership.assessment_id
    where
        ownership.owned_until is null
        or ownership.owned_until >= known.as_of_date

),

open_questions as (

    select
        owned.student_id,
        owned.course_id,
        owned.assessment_id,
        owned.as_of_date,
        owned.course_run_id,
        owned.due_at,
        cast(case
            when owned.due_at is null then 0
            else {{ dbt.datediff(
                'owned.as_of_date', 'cast(owned.due_at as date)', 'day'
            ) }}
        end as {{ dbt.type_int() }}) as lead_days,
        owned.is_training,
        owned.is_scoring,
        owned.kind as assessment_kind,
        sittings.weight as assessment_weight,
        sittings.assessment_position,
        sittings.outcome_due_at,
        sittings.submitted_at,
        sittings.passed,
        sittings.graded_at,
        sittings.first_result_at,
        enrollments.attempt_number,
        enrollments.peer_group_id,
        enrollments.activity_scope_id,
        enrollments.began_at,
        coalesce(enrollments.run_started_at, enrollments.began_at)
            as run_started_at
    from owned
    inner join sittings
        on
            owned.student_id = sittings.student_id
            and owned.course_run_id = sittings.course_run_id
            and owned.assessment_id = sittings.assessment_id
    inner join enrollments
        on
            owned.student_id = enrollments.student_id
            and owned.course_run_id = enrollments.course_run_id
    where
        (
            enrollments.withdrawn_at is null
            or enrollments.withdrawn_at >= owned.as_of_date
        )
        and (
            sittings.submitted_at is null
            or sittings.submitted_at >= owned.as_of_date
        )
        {% if setting('target_definition') == 'course_repurchased' %}
        and enrollments.attempt_number = 1
        {% elif setting('target_definition') == 'assessment_missed' %}
        -- What is due at no time cannot be missed.
        and owned.due_at is not null
        {% endif %}

),

-- A rebooked sitting is asked about once per lead, the first time; where a
-- purchase is the target, an enrollment is.
once_per_lead as (

    select
        *,
        row_number() over (
            partition by
                student_id,
                course_run_id,
                {% if setting('target_definition') != 'course_repurchased' %}
                assessment_id,
                {% endif %}
                lead_days,
                is_training
            order by as_of_date, assessment_id
        ) as time_asked
    from open_questions

),

prediction_points as (

    select
        student_id,
        course_id,
        assessment_id,
        as_of_date,
        course_run_id,
        due_at,
        lead_days,
        is_training = 1 and time_asked = 1 as is_training_point,
        is_scoring = 1 as is_scoring_point,
        attempt_number,
        assessment_kind,
        assessment_weight,
        assessment_position,
        peer_group_id,
        activity_scope_id,
        began_at,
        run_started_at,
        outcome_due_at,
        submitted_at,
        passed,
        graded_at,
        first_result_at
    from once_per_lead
    where
        is_scoring = 1
        or time_asked = 1

)

select * from prediction_points
