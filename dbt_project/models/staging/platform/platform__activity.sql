{%- set minutes_event_types = var('minutes_event_types') %}
{%- set no_text = 'cast(null as ' ~ dbt.type_string() ~ ')' %}
{%- set no_number = 'cast(null as double)' %}
{%- set no_flag = 'cast(null as ' ~ dbt.type_int() ~ ')' %}

with

progress as (

    select
        student_id,
        course_id,
        {{ no_text }} as course_run_id,
        'progress' as activity_type,
        {{ no_text }} as event_type,
        lesson_id as item_id,
        {{ no_number }} as quantity,
        {{ no_number }} as minutes,
        progress_gained,
        is_lesson_start,
        is_lesson_finish,
        {{ no_flag }} as is_correct,
        {{ no_flag }} as is_first_attempt,
        created_at as occurred_at,
        created_at as known_at,
        '' as source_file
    from {{ ref('stg_platform__lesson_steps') }}

),

quiz_answers as (

    select
        student_id,
        course_id,
        {{ no_text }} as course_run_id,
        'quiz_answer' as activity_type,
        {{ no_text }} as event_type,
        lesson_id as item_id,
        {{ no_number }} as quantity,
        {{ no_number }} as minutes,
        {{ no_number }} as progress_gained,
        {{ no_flag }} as is_lesson_start,
        {{ no_flag }} as is_lesson_finish,
        case verdict when 'correct' then 1 when 'incorrect' then 0 end
            as is_correct,
        case when attempt = 0 then 1 when attempt > 0 then 0 end
            as is_first_attempt,
        created_at as occurred_at,
        created_at as known_at,
        '' as source_file
    from {{ ref('stg_platform__quiz_question_answers') }}
    where rejected_because is null

),

sign_ins as (

    select
        student_id,
        {{ no_text }} as course_id,
        {{ no_text }} as course_run_id,
        'sign_in' as activity_type,
        {{ no_text }} as event_type,
        {{ no_text }} as item_id,
        {{ no_number }} as quantity,
        {{ no_number }} as minutes,
        {{ no_number }} as progress_gained,
        {{ no_flag }} as is_lesson_start,
        {{ no_flag }} as is_lesson_finish,
        {{ no_flag }} as is_correct,
        {{ no_flag }} as is_first_attempt,
        created_at as occurred_at,
        created_at as known_at,
        '' as source_file
    from {{ ref('stg_platform__signed_in_events') }}
    where rejected_because is null

),

events as (

    select
        student_id,
        course_id,
        {{ no_text }} as course_run_id,
        'event' as activity_type,
        event_type,
        item_id,
        quantity,
        {% if minutes_event_types -%}
        case
            when event_type in ('{{ minutes_event_types | join("', '") }}')
                then quantity
        end
        {%- else -%}
        {{ no_number }}
        {%- endif %} as minutes,
        {{ no_number }} as progress_gained,
        {{ no_flag }} as is_lesson_start,
        {{ no_flag }} as is_lesson_finish,
        {{ no_flag }} as is_correct,
        {{ no_flag }} as is_first_attempt,
        occurred_at,
        {{ event_known_at() }} as known_at,
        source_file
    from {{ ref('stg_platform__activity_events') }}
    where rejected_because is null

),

-- Events first: they are nearly all rows, and what groups these by day needs less of
-- DuckDB's memory limit than where they come last (measured at 100 million).
activity as (

    select * from events

    union all

    select * from progress

    union all

    select * from quiz_answers

    union all

    select * from sign_ins

)

select * from activity
