-- What happened in the observation window, [as_of_date - window, as_of_date).

{% set window_days = setting('observation_window_days') %}

with

observations as (

    select * from {{ ref('int_observations') }}

),

coverage as (

    select * from {{ ref('int_activity_coverage') }}

),

in_window as (

    select * from {{ ref('int_observed_activity') }}
    where is_in_window = 1

),

sums as (

    select
        student_id,
        course_run_id,
        as_of_date,
        sum(case when study_facts > 0 then 1 else 0 end) as active_days,
        sum(events) as events,
        sum(quantity) as quantity,
        sum(sessions) as sessions,
        sum(minutes) as minutes,
        sum(lessons_started) as lessons_started,
        sum(lessons_finished) as lessons_finished,
        sum(progress_gained) as progress_gained,
        sum(quiz_answers) as quiz_answers,
        sum(quiz_judged) as quiz_judged,
        sum(quiz_correct) as quiz_correct,
        sum(first_attempt_judged) as first_attempt_judged,
        sum(first_attempt_correct) as first_attempt_correct,
        sum(items) as items,
        sum(activity_kinds) as activity_kinds
    from in_window
    group by
        student_id,
        course_run_id,
        as_of_date

),

with_previous as (

    select
        student_id,
        course_run_id,
        as_of_date,
        activity_date,
        lag(activity_date) over (
            partition by student_id, course_run_id, as_of_date
            order by activity_date
        ) as previous_date
    from in_window
    where study_facts > 0

),

-- Days without study before each active day of the window, and after it.
pauses as (

    select
        with_previous.student_id,
        with_previous.course_run_id,
        with_previous.as_of_date,
        case
            when with_previous.previous_date is null
                then {{ dbt.datediff(
                    'observations.window_start',
                    'with_previous.activity_date',
                    'day'
                ) }}
            else {{ dbt.datediff(
                'with_previous.previous_date',
                'with_previous.activity_date',
                'day'
            ) }} - 1
        end as pause_before,
        {{ dbt.datediff(
            'with_previous.activity_date', 'with_previous.as_of_date', 'day'
        ) }} - 1 as pause_after
    from with_previous
    inner join observations
        on
            with_previous.student_id = observations.student_id
            and with_previous.course_run_id = observations.course_run_id
            and with_previous.as_of_date = observations.as_of_date

),

longest_pauses as (

    select
        student_id,
        course_run_id,
        as_of_date,
        greatest(max(pause_before), min(pause_after)) as longest_gap_days
    from pauses
    group by
        student_id,
        course_run_id,
        as_of_date

),

features as (

    select
        observations.student_id,
        observations.course_run_id,
        observations.as_of_date,
        {{ if_recorded('sums.active_days', 'study') }} as window_active_days,
        {{ if_recorded('sums.events', 'events') }} as window_events,
        {{ if_recorded('sums.quantity', 'events') }} as window_quantity,
        {{ if_recorded('sums.sessions', 'sessions') }} as window_sessions,
        {{ if_recorded('sums.minutes', 'minutes') }} as window_minutes,
        {{ if_recorded('sums.lessons_started', 'lessons') }}
            as window_lessons_started,
        {{ if_recorded('sums.lessons_finished', 'progress') }}
            as window_lessons_finished,
        {{ if_recorded('sums.progress_gained', 'progress') }}
            as window_progress_gained,
        {{ if_recorded('sums.quiz_answers', 'quiz') }} as window_quiz_answers,
        {{ ratio('sums.quiz_correct', 'sums.quiz_judged') }}
            as window_quiz_correct_rate,
        {{ ratio('sums.first_attempt_correct', 'sums.first_attempt_judged') }}
            as window_first_attempt_correct_rate,
        case
            when coverage.items_known_from < observations.as_of_date
                then {{ ratio('sums.items', 'sums.active_days') }}
        end as window_items_per_active_day,
        {{ ratio('sums.activity_kinds', 'sums.active_days') }}
            as window_activity_kinds_per_active_day,
        case
            when coverage.study_known_from < observations.as_of_date
                then cast(coalesce(
                    longest_pauses.longest_gap_days, {{ window_days }}
                ) as {{ type_double() }})
        end as window_longest_gap_days
    from observations
    left join sums
        on
            observations.student_id = sums.student_id
            and observations.course_run_id = sums.course_run_id
            and observations.as_of_date = sums.as_of_date
    left join longest_pauses
        on
            observations.student_id = longest_pauses.student_id
            and observations.course_run_id = longest_pauses.course_run_id
            and observations.as_of_date = longest_pauses.as_of_date
    left join coverage
        on observations.activity_scope_id = coverage.activity_scope_id

)

select * from features
