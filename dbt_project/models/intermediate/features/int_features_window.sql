-- What happened in the observation window, [as_of_date - window, as_of_date).

{% set window_days = setting('observation_window_days') %}

with

observations as (

    select * from {{ ref('int_observations') }}

),

coverage as (

    select * from {{ ref('int_activity_coverage') }}

),

sums as (

    select * from {{ ref('int_observed_sums') }}

),

-- The days with study in the window; of those who are asked, because nobody else's
-- breaks are compared.
active_days as (

    select
        observations.enrollment_number,
        observations.as_of_date,
        observations.window_start,
        activity.activity_date,
        lag(activity.activity_date) over (
            partition by observations.enrollment_number, observations.as_of_date
            order by activity.activity_date
        ) as previous_date
    from observations
    inner join {{ ref('int_observed_activity') }} as activity
        on
            observations.enrollment_number = activity.enrollment_number
            and observations.window_start <= activity.activity_date
            and observations.as_of_date > activity.known_date
    where
        observations.is_asked
        and activity.is_new_study_day = 1

),

-- Days without study before each active day of the window, and after it.
pauses as (

    select
        enrollment_number,
        as_of_date,
        case
            when previous_date is null
                then {{ dbt.datediff(
                    'window_start', 'activity_date', 'day'
                ) }}
            else {{ dbt.datediff(
                'previous_date', 'activity_date', 'day'
            ) }} - 1
        end as pause_before,
        {{ dbt.datediff(
            'activity_date', 'as_of_date', 'day'
        ) }} - 1 as pause_after
    from active_days

),

longest_pauses as (

    select
        enrollment_number,
        as_of_date,
        greatest(max(pause_before), min(pause_after)) as longest_gap_days
    from pauses
    group by
        enrollment_number,
        as_of_date

),

features as (

    select
        observations.student_id,
        observations.course_run_id,
        observations.as_of_date,
        {{ if_recorded('sums.window_active_days', 'study') }} as window_active_days,
        {{ if_recorded('sums.window_events', 'events') }} as window_events,
        {{ if_recorded('sums.window_quantity', 'events') }} as window_quantity,
        {{ if_recorded('sums.window_sessions', 'sessions') }} as window_sessions,
        {{ if_recorded('sums.window_minutes', 'minutes') }} as window_minutes,
        {{ if_recorded('sums.window_lessons_started', 'lessons') }}
            as window_lessons_started,
        {{ if_recorded('sums.window_lessons_finished', 'progress') }}
            as window_lessons_finished,
        {{ if_recorded('sums.window_progress_gained', 'progress') }}
            as window_progress_gained,
        {{ if_recorded('sums.window_quiz_answers', 'quiz') }} as window_quiz_answers,
        {{ ratio('sums.window_quiz_correct', 'sums.window_quiz_judged') }}
            as window_quiz_correct_rate,
        {{ ratio('sums.window_first_attempt_correct', 'sums.window_first_attempt_judged') }}
            as window_first_attempt_correct_rate,
        case
            when coverage.items_known_from < observations.as_of_date
                then {{ ratio('sums.window_items', 'sums.window_active_days') }}
        end as window_items_per_active_day,
        {{ ratio('sums.window_activity_kinds', 'sums.window_active_days') }}
            as window_activity_kinds_per_active_day,
        case
            when
                observations.is_asked
                and coverage.study_known_from < observations.as_of_date
                then cast(coalesce(
                    longest_pauses.longest_gap_days, {{ window_days }}
                ) as {{ type_double() }})
        end as window_longest_gap_days
    from observations
    inner join sums
        on
            observations.enrollment_number = sums.enrollment_number
            and observations.as_of_date = sums.as_of_date
    left join longest_pauses
        on
            observations.enrollment_number = longest_pauses.enrollment_number
            and observations.as_of_date = longest_pauses.as_of_date
    left join coverage
        on observations.activity_scope_id = coverage.activity_scope_id

)

select * from features
