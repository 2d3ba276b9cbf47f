{{
    config(
        materialized='incremental' if builds_incrementally() else 'table',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook=['{{ delete_forgotten(this) }}', '{{ delete_known_again() }}'],
    )
}}

{% set has_time = 'activity.occurred_at > cast(activity.activity_date as '
    ~ dbt.type_timestamp() ~ ')' %}
{% set is_evening = '(extract(hour from activity.occurred_at) >= 18'
    ~ ' or extract(hour from activity.occurred_at) < 6)' %}

-- The one place that reads raw activity. A run after the first one replaces what
-- became known from the look-back on (macros/incremental.sql).
-- depends_on: {{ ref('int_read_from') }}
{% if reads_event_files() %}-- depends_on: {{ ref('stg_platform__event_files') }}{% endif %}

{% set since = known_again_from() if is_incremental() else none %}

with

activity as (

    select
        *,
        case
            when activity_type <> 'sign_in' then coalesce(event_type, activity_type)
        end as activity_kind,
        cast(occurred_at as date) as activity_date,
        cast(known_at as date) as known_date
    from {{ canonical('activity') }}
    {% if since %}
    where
        known_at >= cast('{{ since }}' as {{ dbt.type_timestamp() }})
        and {{ in_file_to_read(since) }}
    {% endif %}

),

kinds as (

    select * from {{ canonical('activity_kinds') }}

),

-- Most of what is studied are lessons of the course.
lessons as (

    select distinct
        course_id,
        coalesce(course_run_id, '') as course_run_id,
        lesson_id as item_id,
        1 as uses
    from {{ canonical('lessons') }}

),

items as (

    {{ flag_values('lessons', 'item_id', within=['course_id', 'course_run_id']) }}

),

daily as (

    select
        activity.student_id,
        activity.course_id,
        activity.course_run_id,
        activity.activity_date,
        activity.known_date,
        cast(count(*) as {{ dbt.type_int() }}) as facts,
        {{ count_of_day("activity.activity_type = 'event'") }} as events,
        -- Decimals, because a sum of floats depends on the order of the rows.
        sum({{ as_decimal('activity.quantity') }}) as quantity,
        {{ count_of_day("activity.activity_type = 'sign_in'") }} as sessions,
        sum({{ as_decimal('activity.minutes') }}) as minutes,
        {{ count_of_day('activity.is_lesson_start = 1') }} as lessons_started,
        {{ count_of_day('activity.is_lesson_finish = 1') }} as lessons_finished,
        sum({{ as_decimal('activity.progress_gained') }}) as progress_gained,
        {{ count_of_day("activity.activity_type = 'quiz_answer'") }}
            as quiz_answers,
        {{ count_of_day('activity.is_correct is not null') }} as quiz_judged,
        {{ count_of_day('activity.is_correct = 1') }} as quiz_correct,
        {{ count_of_day(
            'activity.is_first_attempt = 1 and activity.is_correct is not null'
        ) }} as first_attempt_judged,
        {{ count_of_day(
            'activity.is_first_attempt = 1 and activity.is_correct = 1'
        ) }} as first_attempt_correct,
        {{ count_flagged('items.flag', 'activity.item_id') }} as items,
        {{ count_flagged('kinds.flag', 'activity.activity_kind') }} as activity_kinds,
        -- A date without a time became midnight, so midnight is no time of day.
        {{ count_of_day(
            "activity.activity_type <> 'sign_in' and " ~ has_time
        ) }} as timed_facts,
        {{ count_of_day(
            "activity.activity_type <> 'sign_in' and " ~ has_time
            ~ ' and ' ~ is_evening
        ) }} as evening_facts,
        min(activity.known_at) as first_known_at,
        max(activity.known_at) as last_known_at,
        max(activity.occurred_at) as last_occurred_at
    from activity
    left join kinds on activity.activity_kind = kinds.activity_kind
    left join items
        on
            activity.item_id = items.item_id
            and activity.course_id = items.course_id
            and coalesce(activity.course_run_id, '') = items.course_run_id
    group by
        activity.student_id,
        activity.course_id,
        activity.course_run_id,
        activity.activity_date,
        activity.known_date

)

select * from daily
