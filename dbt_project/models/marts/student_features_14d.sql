{#
  The contract lists every column; attributes come on top of it when asked for. A table
  can only get a column in a transaction that has deleted nothing from it: the hook
  stands before that one then.
#}
{{
    config(
        contract={'enforced': not setting('include_attributes')},
        materialized='incremental' if builds_incrementally() else 'table',
        incremental_strategy='append',
        on_schema_change='sync_all_columns' if setting('include_attributes') else 'fail',
        pre_hook={
            'sql': '{{ delete_rebuilt_points(this) }}',
            'transaction': not setting('include_attributes'),
        },
    )
}}

-- One row per prediction point: the key, then what was known before as_of_date.
-- depends_on: {{ ref('int_rebuild_from') }}
-- depends_on: {{ ref('int_prediction_points') }}

with

points as (

    select * from {{ ref('int_points_to_build') }}

),

context as (

    select * from {{ ref('int_features_context') }}

),

recent as (

    select * from {{ ref('int_features_window') }}

),

velocity as (

    select * from {{ ref('int_features_velocity') }}

),

to_date as (

    select * from {{ ref('int_features_to_date') }}

),

habits as (

    select * from {{ ref('int_features_habits') }}

),

record as (

    select * from {{ ref('int_features_record') }}

),

relative as (

    select * from {{ ref('int_features_relative') }}

),

{% if setting('include_attributes') %}

attributes as (

    select * from {{ ref('int_features_attributes') }}

),

{% endif %}

student_features as (

    select
        points.student_id,
        points.course_id,
        points.assessment_id,
        points.as_of_date,
        ---------- recent
        recent.window_active_days,
        recent.window_events,
        recent.window_quantity,
        recent.window_sessions,
        recent.window_minutes,
        recent.window_lessons_started,
        recent.window_lessons_finished,
        recent.window_progress_gained,
        recent.window_quiz_answers,
        recent.window_quiz_correct_rate,
        recent.window_first_attempt_correct_rate,
        recent.window_longest_gap_days,
        recent.window_items_per_active_day,
        recent.window_activity_kinds_per_active_day,
        ---------- velocity
        velocity.velocity_active_days_change,
        velocity.velocity_activity_change,
        velocity.velocity_activity_slope,
        ---------- to_date
        to_date.to_date_active_days,
        to_date.to_date_events,
        to_date.to_date_quantity,
        to_date.to_date_sessions,
        to_date.to_date_minutes,
        to_date.to_date_lessons_started,
        to_date.to_date_lessons_finished,
        to_date.to_date_quiz_answers,
        to_date.to_date_quiz_correct_rate,
        to_date.to_date_first_attempt_correct_rate,
        to_date.to_date_first_attempt_correct_smoothed,
        to_date.to_date_items_per_active_day,
        to_date.to_date_share_of_course,
        to_date.days_since_last_activity,
        to_date.days_from_enrolling_to_first_study,
        ---------- habits
        habits.habit_longest_streak_days,
        habits.habit_current_streak_days,
        habits.habit_longest_gap_days,
        habits.habit_weekend_share,
        habits.habit_evening_share,
        habits.habit_weekday_regularity,
        ---------- record
        record.record_assessments_due,
        record.record_assessments_missed,
        record.record_assessments_late,
        record.record_missed_share,
        record.record_missed_weight_share,
        record.record_passed_share,
        record.record_mean_score,
        record.record_last_score,
        record.record_last_missed,
        record.record_last_days_early,
        record.record_days_since_last_due,
        record.record_previous_score,
        record.record_previous_missed,
        record.record_previous_days_early,
        record.record_missed_in_a_row,
        record.record_mean_days_early,
        record.record_days_since_handing_in,
        record.record_handed_in_early,
        record.record_earlier_attempts,
        record.record_other_enrollments,
        record.record_other_withdrawn,
        record.record_other_open,
        record.record_other_missed_share,
        record.record_other_mean_score,
        record.record_other_passed,
        record.record_other_failed,
        ---------- relative
        relative.relative_active_days_percentile,
        relative.relative_recent_activity_percentile,
        relative.relative_share_of_course_percentile,
        relative.relative_mean_score_percentile,
        relative.relative_missed_share_percentile,
        relative.relative_days_early_percentile,
        relative.relative_run_missed_share,
        {% if setting('include_attributes') %}
        ---------- attributes
        {% for name in attribute_names() %}
        attributes.attribute_{{ name }},
        {% endfor %}
        {% endif %}
        ---------- context
        context.lead_days,
        context.context_assessment_weight,
        context.context_assessment_position,
        context.context_assessment_kind,
        context.context_course_category,
        context.context_days_enrolled,
        context.context_days_into_run,
        context.context_days_enrolled_before_start,
        context.context_course_failure_rate,
        context.context_position_failure_rate
    from points
    inner join context
        on
            points.student_id = context.student_id
            and points.course_id = context.course_id
            and points.assessment_id = context.assessment_id
            and points.as_of_date = context.as_of_date
    inner join recent
        on
            points.student_id = recent.student_id
            and points.course_run_id = recent.course_run_id
            and points.as_of_date = recent.as_of_date
    inner join velocity
        on
            points.student_id = velocity.student_id
            and points.course_run_id = velocity.course_run_id
            and points.as_of_date = velocity.as_of_date
    inner join to_date
        on
            points.student_id = to_date.student_id
            and points.course_run_id = to_date.course_run_id
            and points.as_of_date = to_date.as_of_date
    inner join habits
        on
            points.student_id = habits.student_id
            and points.course_run_id = habits.course_run_id
            and points.as_of_date = habits.as_of_date
    inner join record
        on
            points.student_id = record.student_id
            and points.course_run_id = record.course_run_id
            and points.as_of_date = record.as_of_date
    inner join relative
        on
            points.student_id = relative.student_id
            and points.course_run_id = relative.course_run_id
            and points.as_of_date = relative.as_of_date
    {% if setting('include_attributes') %}
    inner join attributes
        on
            points.student_id = attributes.student_id
            and points.course_run_id = attributes.course_run_id
    {% endif %}

)

select * from student_features
