{{
    config(
        materialized='table' if target.type == 'spark' else 'incremental',
        incremental_strategy='delete+insert',
        unique_key='activity_date',
        on_schema_change='fail',
        pre_hook='{{ delete_forgotten(this) }}',
    )
}}

{% set has_time = 'activity.occurred_at > cast(activity.activity_date as '
    ~ dbt.type_timestamp() ~ ')' %}

-- The one place that reads raw activity. A run after the first one replaces
-- whole days: those within the look-back, and older ones in which the number of
-- facts or what they add to lessons has changed (a late row moves the start of a
-- lesson away from another day), so that it ends where a full refresh would,
-- unless values were corrected in place or whole days removed further back.

with

activity as (

    select
        *,
        cast(occurred_at as date) as activity_date,
        cast(known_at as date) as known_date
    from {{ canonical('activity') }}

),

{% if is_incremental() %}

facts_read as (

    select
        activity_date,
        count(*) as facts,
        {{ count_where('is_lesson_start = 1') }} as lessons_started,
        coalesce(sum({{ as_decimal('progress_gained') }}), 0)
            as progress_gained
    from activity
    group by activity_date

),

facts_held as (

    select
        activity_date,
        sum(facts) as facts,
        sum(lessons_started) as lessons_started,
        coalesce(sum(progress_gained), 0) as progress_gained
    from {{ this }}
    group by activity_date

),

look_back as (

    select
        {{ add_days('max(activity_date)', '-' ~ var('event_lookback_days')) }}
            as since
    from facts_held

),

changed_days as (

    select facts_read.activity_date
    from facts_read
    left join facts_held
        on facts_read.activity_date = facts_held.activity_date
    cross join look_back
    where
        facts_held.activity_date is null
        or facts_read.facts <> facts_held.facts
        or facts_read.lessons_started <> facts_held.lessons_started
        or facts_read.progress_gained <> facts_held.progress_gained
        or facts_read.activity_date >= look_back.since

),

{% endif %}

daily as (

    select
        activity.student_id,
        activity.course_id,
        activity.course_run_id,
        activity.activity_date,
        activity.known_date,
        cast(count(*) as {{ dbt.type_bigint() }}) as facts,
        {{ count_where("activity.activity_type = 'event'") }} as events,
        -- Decimals, because a sum of floats depends on the order of the rows.
        sum({{ as_decimal('activity.quantity') }}) as quantity,
        {{ count_where("activity.activity_type = 'sign_in'") }} as sessions,
        sum({{ as_decimal('activity.minutes') }}) as minutes,
        {{ count_where('activity.is_lesson_start = 1') }} as lessons_started,
        {{ count_where('activity.is_lesson_finish = 1') }} as lessons_finished,
        sum({{ as_decimal('activity.progress_gained') }}) as progress_gained,
        {{ count_where("activity.activity_type = 'quiz_answer'") }}
            as quiz_answers,
        {{ count_where('activity.is_correct is not null') }} as quiz_judged,
        {{ count_where('activity.is_correct = 1') }} as quiz_correct,
        {{ count_where(
            'activity.is_first_attempt = 1 and activity.is_correct is not null'
        ) }} as first_attempt_judged,
        {{ count_where(
            'activity.is_first_attempt = 1 and activity.is_correct = 1'
        ) }} as first_attempt_correct,
        count(distinct activity.item_id) as items,
        count(distinct case
            when activity.activity_type <> 'sign_in'
                then coalesce(activity.event_type, activity.activity_type)
        end) as activity_kinds,
        -- A date without a time became midnight, so midnight is no time of day.
        {{ count_where(
            "activity.activity_type <> 'sign_in' and " ~ has_time
        ) }} as timed_facts,
        {{ count_where(
            "activity.activity_type <> 'sign_in' and " ~ has_time
            ~ ' and (extract(hour from activity.occurred_at) >= 18'
            ~ ' or extract(hour from activity.occurred_at) < 6)'
        ) }} as evening_facts
    from activity
    {% if is_incremental() %}
    inner join changed_days
        on activity.activity_date = changed_days.activity_date
    {% endif %}
    group by
        activity.student_id,
        activity.course_id,
        activity.course_run_id,
        activity.activity_date,
        activity.known_date

)

select * from daily
