{{
    config(
        materialized='incremental' if builds_incrementally() else 'table',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook=['{{ delete_forgotten(this) }}', '{{ delete_rebuilt(this) }}'],
    )
}}

{# The names that activity bears. For each combination of them a day of an enrollment has
   one row at most, so that they are joined: adding all up in groups takes twice the
   time, and more memory. #}
{% set combinations = {
    'of_course': ['course_id'],
    'of_run': ['course_id', 'course_run_id'],
    'of_run_alone': ['course_run_id'],
    'of_platform': [],
} %}
{% set counts = [
    'events', 'sessions', 'lessons_started', 'lessons_finished', 'quiz_answers',
    'quiz_judged', 'quiz_correct', 'first_attempt_judged', 'first_attempt_correct',
    'items', 'activity_kinds', 'timed_facts', 'evening_facts',
] %}
{% set amounts = ['quantity', 'minutes', 'progress_gained'] %}

-- Daily activity given to the enrollment it belongs to: by run where the source
-- says so, else by time; what is platform-wide counts for each open enrollment.
-- depends_on: {{ ref('int_rebuild_from') }}

with

enrollments as (

    select
        *,
        cast(began_at as date) as began_date,
        cast(next_began_at as date) as next_began_date
    from {{ ref('int_enrollments') }}

),

{% for combination, names in combinations.items() %}
{{ combination }} as (

    select
        {% for name in counts + amounts %}
        daily.{{ name }},
        {% endfor %}
        daily.facts - daily.sessions as study_facts,
        enrollments.enrollment_number,
        daily.activity_date,
        daily.known_date
    from {{ ref('int_daily_activity') }} as daily
    {% if is_incremental() %}
    inner join {{ ref('int_rebuild_from') }} as rebuild
        on daily.known_date >= rebuild.rebuild_from
    {% endif %}
    inner join enrollments
        on
            daily.student_id = enrollments.student_id
            {% for name in names %}
            and daily.{{ name }} = enrollments.{{ name }}
            {% endfor %}
    where
        daily.course_id is {{ 'not' if 'course_id' in names }} null
        and daily.course_run_id is {{ 'not' if 'course_run_id' in names }} null
        and daily.activity_date >= enrollments.began_date
        and (
            -- Runs may overlap where the source tells them apart.
            daily.course_run_id is not null
            or enrollments.next_began_date is null
            or daily.activity_date < enrollments.next_began_date
        )

),

{% endfor %}
enrollment_activity as (

    select
        enrollments.student_id,
        enrollments.course_run_id,
        {{ joined_column('activity_date', combinations) }} as activity_date,
        {{ joined_column('known_date', combinations) }} as known_date,
        {% for name in counts %}
        {{ add_up_joined(name, combinations) }} as {{ name }},
        {% endfor %}
        {% for name in amounts %}
        {{ add_up_joined(name, combinations, may_be_null=true) }} as {{ name }},
        {% endfor %}
        {{ add_up_joined('study_facts', combinations) }} as study_facts
    from of_course
    {% for combination in (combinations | list)[1:] %}
    {% set joined = (combinations | list)[:loop.index] %}
    full outer join {{ combination }}
        on
            {{ joined_column('enrollment_number', joined) }}
            = {{ combination }}.enrollment_number
            and {{ joined_column('activity_date', joined) }}
            = {{ combination }}.activity_date
            and {{ joined_column('known_date', joined) }}
            = {{ combination }}.known_date
    {% endfor %}
    inner join enrollments
        on
            {{ joined_column('enrollment_number', combinations) }}
            = enrollments.enrollment_number

)

select * from enrollment_activity
