{#
  How clean models decide which raw rows to reject. Each macro renders branches
  of one `case ... end as rejected_because`; the first that applies is the
  reason, and a row without a reason is accepted.
#}


{# Facts later than this have not happened yet: one day after the wall clock,
   because clocks and time zones disagree. #}
{% macro latest_plausible_time() %}
    {%- set limit = run_started_at.astimezone(modules.pytz.utc)
        + modules.datetime.timedelta(days=1) -%}
    cast(
        '{{ limit.strftime("%Y-%m-%d %H:%M:%S") }}' as {{ dbt.type_timestamp() }}
    )
{%- endmacro %}


{# No platform's facts are older; an empty time often ends up as 1970. #}
{% macro earliest_plausible_time() -%}
    cast('1990-01-01 00:00:00' as {{ dbt.type_timestamp() }})
{%- endmacro %}


{% macro reject_missing(columns) %}
    {% for column in columns %}
    when {{ column }} is null then '{{ column }} is missing'
    {% endfor %}
{% endmacro %}


{# A time without which the row cannot be used. #}
{% macro reject_bad_time(column, may_be_future=false) %}
    when {{ column }} is null then '{{ column }} is missing or not a time'
    when {{ column }} < {{ earliest_plausible_time() }}
        then '{{ column }} is before 1990'
    {% if not may_be_future %}
    when {{ column }} > {{ latest_plausible_time() }}
        then '{{ column }} is in the future'
    {% endif %}
{% endmacro %}


{# A time that may be null, but not something else; needs raw_<column>. #}
{% macro reject_bad_optional_time(column, may_be_future=false) %}
    when {{ is_unparsed(column) }} then '{{ column }} is not a time'
    when {{ column }} < {{ earliest_plausible_time() }}
        then '{{ column }} is before 1990'
    {% if not may_be_future %}
    when {{ column }} > {{ latest_plausible_time() }}
        then '{{ column }} is in the future'
    {% endif %}
{% endmacro %}


{# A number that may be null, but neither something else nor out of range. #}
{% macro reject_bad_number(column, low, high) %}
    when {{ is_unparsed(column) }} then '{{ column }} is not a number'
    when not ({{ column }} >= {{ low }} and {{ column }} <= {{ high }})
        then '{{ column }} is outside {{ low }} to {{ high }}'
{% endmacro %}


{# Something was given, and it could not be cast; needs raw_<column>. #}
{% macro is_unparsed(column) -%}
    ({{ column }} is null and {{ blank_to_null('raw_' ~ column) }} is not null)
{%- endmacro %}


{# The ids of a rejected row, and nothing else: `student_id=7, lesson_id=?`. #}
{% macro record_key(columns) %}
    {%- for column in columns -%}
    {{ "', " if not loop.first else "'" }}{{ column }}='
    || coalesce({{ column }}, '?')
    {{- ' || ' if not loop.last }}
    {%- endfor -%}
{% endmacro %}


{# The raw tables of the native contract, each with the ids that tell which row
   it was; times and values stay out, so that quarantine holds ids only. #}
{% macro platform_tables() %}
    {{ return({
        'students': ['student_id'],
        'student_contacts': ['student_id'],
        'courses': ['course_id'],
        'lessons': ['lesson_id'],
        'assessments': ['assessment_id'],
        'assessment_bookings': ['student_id', 'assessment_id'],
        'subscriptions': ['subscription_id', 'student_id'],
        'lesson_progresses': ['student_id', 'lesson_id'],
        'quiz_question_answers': ['student_id', 'quiz_question_id'],
        'assessment_results': ['result_id', 'student_id'],
        'signed_in_events': ['student_id'],
        'activity_events': ['event_id', 'student_id', 'item_id'],
    }) }}
{% endmacro %}


{# Names the tables on the console: a failing test only gives their number. #}
{% macro name_tables_over_quarantine_limit() %}
    {% if not execute or flags.WHICH not in ['build', 'test'] %}
        {{ return('') }}
    {% endif %}
    {% set summary = load_relation(ref('quarantine_summary')) %}
    {% if summary is none %}{{ return('') }}{% endif %}
    {% set limit = var('max_quarantine_share') %}
    {% for row in run_query(
        'select source_table, rejected_rows, raw_rows from ' ~ summary
        ~ ' where rejected_share > ' ~ limit ~ ' order by source_table'
    ).rows %}
        {% do log(
            'QUARANTINE ' ~ row[0] ~ ': ' ~ row[1] ~ ' of ' ~ row[2]
            ~ ' rows rejected, more than ' ~ limit
            ~ ' of them; see quarantine.quarantine_by_reason.', info=true
        ) %}
    {% endfor %}
{% endmacro %}


{# The CTE `parsed_events` of a CTE of rows of stg_platform__identified_events. #}
{% macro parse_events(events) %}
parsed_events as (

    select
        raw_event_id,
        event_id,
        {{ blank_to_null('raw_student_id') }} as student_id,
        {{ blank_to_null('raw_course_id') }} as course_id,
        {{ blank_to_null('raw_event_type') }} as event_type,
        {{ blank_to_null('raw_item_id') }} as item_id,
        raw_quantity,
        {{ parse_number('raw_quantity') }} as quantity,
        {{ parse_timestamp('raw_occurred_at') }} as occurred_at,
        raw_loaded_at,
        {{ parse_timestamp('raw_loaded_at') }} as loaded_at,
        source_file
    from {{ events }}

)
{%- endmacro %}


{#
  The CTEs that parse events and say what is wrong with each by itself, the last of
  them `checked_events`. `events` is a CTE of rows of stg_platform__identified_events.
#}
{% macro check_events(events) %}
{{ parse_events(events) }},

students as (

    select student_id from {{ ref('stg_platform__students') }}
    where rejected_because is null

),

courses as (

    select course_id from {{ ref('stg_platform__courses') }}
    where rejected_because is null

),

matched as (

    select
        parsed_events.*,
        students.student_id as known_student_id,
        courses.course_id as known_course_id
    from parsed_events
    left join students on parsed_events.student_id = students.student_id
    left join courses on parsed_events.course_id = courses.course_id

),

checked_events as (

    select
        raw_event_id,
        event_id,
        student_id,
        course_id,
        event_type,
        item_id,
        quantity,
        occurred_at,
        loaded_at,
        source_file,
        case
            {{ reject_missing(['student_id', 'event_type']) }}
            when known_student_id is null then 'student_id is unknown'
            when course_id is not null and known_course_id is null
                then 'course_id is unknown'
            {{ reject_bad_time('occurred_at', may_be_future=true) }}
            -- Otherwise a late event would count as known at once.
            {{ reject_bad_optional_time('loaded_at', may_be_future=true) }}
            -- The later of two times in the future, so that this stays the reason until
            -- the event is known.
            when loaded_at > occurred_at and loaded_at > {{ latest_plausible_time() }}
                then 'loaded_at is in the future'
            when occurred_at > {{ latest_plausible_time() }}
                then 'occurred_at is in the future'
            -- The upper bound keeps sums exact.
            {{ reject_bad_number('quantity', 0, 1000000000000) }}
        end as rejected_because
    from matched

)
{% endmacro %}
