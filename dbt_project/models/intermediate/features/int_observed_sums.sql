-- What each observation sees of its enrollment's activity, added up: to date, in
-- the window, and in the two halves of it.
--
-- A day of activity is counted when it comes into view, and again when it leaves the
-- window or a half of it: each time on the next day on which its peers are observed.
-- A sum is the running total of what has come less what has left, so that its cost
-- does not grow with the number of observations that see the same day. What an
-- enrollment's last observation does not see is left out.

{% set leaving = leaves_window_after() %}
-- The same where the window has an even number of days.
{% set rest = 'rest' if 'rest' in leaving else 'late' %}

{% set weekdays = ['weekday_0', 'weekday_1', 'weekday_2', 'weekday_3', 'weekday_4',
    'weekday_5', 'weekday_6'] %}
{% set of_halves = ['active_days', 'study_facts'] %}
{% set of_window = of_halves + [
    'study_facts_by_day', 'events', 'quantity', 'sessions', 'minutes',
    'lessons_started', 'lessons_finished', 'progress_gained', 'quiz_answers',
    'quiz_judged', 'quiz_correct', 'first_attempt_judged', 'first_attempt_correct',
    'items', 'activity_kinds',
] %}
{# Whole numbers but for these. #}
{% set types = {
    'quantity': 'decimal(38, 6)',
    'minutes': 'decimal(38, 6)',
    'progress_gained': 'decimal(38, 6)',
    'study_facts_by_day': dbt.type_bigint(),
} %}
{% set whole = dbt.type_int() %}
{% set to_date = of_window + ['timed_facts', 'evening_facts'] + weekdays %}

with

observations as (

    select * from {{ ref('int_observations') }}

),

activity as (

    select
        *,
        is_new_study_day as active_days,
        cast(study_facts as {{ dbt.type_bigint() }}) * {{ dbt.datediff(
            "cast('1900-01-01' as date)", 'activity_date', 'day'
        ) }} as study_facts_by_day,
        {% for name in weekdays %}
        case
            when {{ weekday('activity_date') }} = {{ loop.index0 }}
                then is_new_study_day
        end as {{ name }},
        {% endfor %}
        case when is_new_study_day = 1 then activity_date end as study_date
    from {{ ref('int_observed_activity') }}

),

next_dates as (

    select * from {{ ref('int_next_observed') }}

),

-- Nothing leaves before it has come.
placed as (

    select
        activity.*,
        {% for name in leaving %}
        case
            when happened.{{ name }}_over_on >= known.seen_on
                then happened.{{ name }}_over_on
            when happened.{{ name }}_over_on < known.seen_on then known.seen_on
        end as {{ name }}_over_on,
        {% endfor %}
        known.seen_on
    from activity
    inner join next_dates as known
        on
            activity.peer_group_id = known.peer_group_id
            and activity.known_date = known.day
    inner join next_dates as happened
        on
            activity.peer_group_id = happened.peer_group_id
            and activity.activity_date = happened.day
    where known.seen_on <= activity.last_observed_on

),

come as (

    select
        enrollment_number,
        seen_on as as_of_date,
        {% for name in to_date %}
        {{ add_up(name, types.get(name, whole)) }} as {{ name }},
        {% endfor %}
        min(study_date) as first_date,
        max(study_date) as last_date
    from placed
    group by
        enrollment_number,
        seen_on

),

{% for move in leaving %}
left_{{ move }} as (

    select
        {% for name in (of_window if move == 'window' else of_halves) %}
        {{ add_up(name, types.get(name, whole)) }} as {{ name }},
        {% endfor %}
        enrollment_number,
        {{ move }}_over_on as as_of_date
    from placed
    where {{ move }}_over_on <= last_observed_on
    group by
        enrollment_number,
        {{ move }}_over_on

),

{% endfor %}
-- What changes on a day on which its own enrollment is not observed stays in the
-- running totals.
days_of_change as (

    select
        enrollment_number,
        as_of_date
    from observations

    union

    select
        enrollment_number,
        as_of_date
    from come
    {% for move in leaving %}

    union

    select
        enrollment_number,
        as_of_date
    from left_{{ move }}
    {% endfor %}

),

changes as (

    select
        days_of_change.enrollment_number,
        days_of_change.as_of_date,
        {% for name in to_date %}
        come.{{ name }},
        {% endfor %}
        {% for name in of_window %}
        left_window.{{ name }} as left_window_{{ name }},
        {% endfor %}
        {% for move in leaving if move != 'window' %}
        {% for name in of_halves %}
        left_{{ move }}.{{ name }} as left_{{ move }}_{{ name }},
        {% endfor %}
        {% endfor %}
        come.first_date,
        come.last_date
    from days_of_change
    left join come
        on
            days_of_change.enrollment_number = come.enrollment_number
            and days_of_change.as_of_date = come.as_of_date
    {% for move in leaving %}
    left join left_{{ move }}
        on
            days_of_change.enrollment_number = left_{{ move }}.enrollment_number
            and days_of_change.as_of_date = left_{{ move }}.as_of_date
    {% endfor %}

),

totals as (

    select
        enrollment_number,
        as_of_date,
        {% for name in to_date %}
        coalesce({{ add_up(name, types.get(name, whole), 'so_far') }}, 0)
            as {{ name }},
        {% endfor %}
        {% for name in of_window %}
        coalesce({{ add_up(
            'left_window_' ~ name, types.get(name, whole), 'so_far'
        ) }}, 0)
            as left_window_{{ name }},
        {% endfor %}
        {% for move in leaving if move != 'window' %}
        {% for name in of_halves %}
        coalesce({{ add_up(
            'left_' ~ move ~ '_' ~ name, types.get(name, whole), 'so_far'
        ) }}, 0)
            as left_{{ move }}_{{ name }},
        {% endfor %}
        {% endfor %}
        min(first_date) over so_far as first_date,
        max(last_date) over so_far as last_date
    from changes
    window so_far as (
        partition by enrollment_number
        order by as_of_date
        rows between unbounded preceding and current row
    )

),

observed_sums as (

    select
        observations.enrollment_number,
        observations.student_id,
        observations.course_run_id,
        observations.as_of_date,
        {% for name in to_date %}
        totals.{{ name }},
        {% endfor %}
        {% for name in of_window %}
        totals.{{ name }} - totals.left_window_{{ name }} as window_{{ name }},
        {% endfor %}
        {% for name in of_halves %}
        totals.{{ name }} - totals.left_late_{{ name }} as late_{{ name }},
        totals.left_{{ rest }}_{{ name }} - totals.left_window_{{ name }}
            as early_{{ name }},
        {% endfor %}
        totals.first_date,
        totals.last_date
    from observations
    inner join totals
        on
            observations.enrollment_number = totals.enrollment_number
            and observations.as_of_date = totals.as_of_date

)

select * from observed_sums
