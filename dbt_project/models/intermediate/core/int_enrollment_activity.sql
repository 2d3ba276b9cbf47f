{{
    config(
        materialized='incremental' if builds_incrementally() else 'table',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook=['{{ delete_forgotten(this) }}', '{{ delete_rebuilt(this) }}'],
    )
}}

{% set whole = dbt.type_int() %}

-- Daily activity given to the enrollment it belongs to: by run where the source
-- says so, else by time; what is platform-wide counts for each open enrollment.

with

daily as (

    select daily.*
    from {{ ref('int_daily_activity') }} as daily
    {% if is_incremental() %}
    inner join {{ ref('int_rebuild_from') }} as rebuild
        on daily.known_date >= rebuild.rebuild_from
    {% else %}
    -- depends_on: {{ ref('int_rebuild_from') }}
    {% endif %}

),

enrollments as (

    select
        *,
        cast(began_at as date) as began_date,
        cast(next_began_at as date) as next_began_date
    from {{ ref('int_enrollments') }}

),

enrollment_activity as (

    select
        enrollments.student_id,
        enrollments.course_run_id,
        daily.activity_date,
        daily.known_date,
        {{ add_up('daily.facts - daily.sessions', whole) }} as study_facts,
        {{ add_up('daily.events', whole) }} as events,
        sum(daily.quantity) as quantity,
        {{ add_up('daily.sessions', whole) }} as sessions,
        sum(daily.minutes) as minutes,
        {{ add_up('daily.lessons_started', whole) }} as lessons_started,
        {{ add_up('daily.lessons_finished', whole) }} as lessons_finished,
        sum(daily.progress_gained) as progress_gained,
        {{ add_up('daily.quiz_answers', whole) }} as quiz_answers,
        {{ add_up('daily.quiz_judged', whole) }} as quiz_judged,
        {{ add_up('daily.quiz_correct', whole) }} as quiz_correct,
        {{ add_up('daily.first_attempt_judged', whole) }} as first_attempt_judged,
        {{ add_up('daily.first_attempt_correct', whole) }} as first_attempt_correct,
        {{ add_up('daily.items', whole) }} as items,
        {{ add_up('daily.activity_kinds', whole) }} as activity_kinds,
        {{ add_up('daily.timed_facts', whole) }} as timed_facts,
        {{ add_up('daily.evening_facts', whole) }} as evening_facts
    from daily
    inner join enrollments
        on
            daily.student_id = enrollments.student_id
            and coalesce(daily.course_id, enrollments.course_id)
            = enrollments.course_id
            and coalesce(daily.course_run_id, enrollments.course_run_id)
            = enrollments.course_run_id
    where
        daily.activity_date >= enrollments.began_date
        and (
            -- Runs may overlap where the source tells them apart.
            daily.course_run_id is not null
            or enrollments.next_began_date is null
            or daily.activity_date < enrollments.next_began_date
        )
    group by
        enrollments.student_id,
        enrollments.course_run_id,
        daily.activity_date,
        daily.known_date

)

select * from enrollment_activity
