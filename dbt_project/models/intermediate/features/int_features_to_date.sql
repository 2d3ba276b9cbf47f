-- What happened since the enrollment began.

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

lesson_counts as (

    select
        course_id,
        course_run_id,
        count(*) as lessons
    from {{ canonical('lessons') }}
    group by
        course_id,
        course_run_id

),

features as (

    select
        observations.student_id,
        observations.course_run_id,
        observations.as_of_date,
        {{ if_recorded('sums.active_days', 'study') }} as to_date_active_days,
        {{ if_recorded('sums.events', 'events') }} as to_date_events,
        {{ if_recorded('sums.quantity', 'events') }} as to_date_quantity,
        {{ if_recorded('sums.sessions', 'sessions') }} as to_date_sessions,
        {{ if_recorded('sums.minutes', 'minutes') }} as to_date_minutes,
        {{ if_recorded('sums.lessons_started', 'lessons') }}
            as to_date_lessons_started,
        {{ if_recorded('sums.lessons_finished', 'progress') }}
            as to_date_lessons_finished,
        {{ if_recorded('sums.quiz_answers', 'quiz') }} as to_date_quiz_answers,
        {{ ratio('sums.quiz_correct', 'sums.quiz_judged') }}
            as to_date_quiz_correct_rate,
        {{ ratio('sums.first_attempt_correct', 'sums.first_attempt_judged') }}
            as to_date_first_attempt_correct_rate,
        -- Laplace's rule of succession: few answers say little.
        case
            when coverage.quiz_known_from < observations.as_of_date
                then {{ ratio(
                    'coalesce(sums.first_attempt_correct, 0) + 1',
                    'coalesce(sums.first_attempt_judged, 0) + 2'
                ) }}
        end as to_date_first_attempt_correct_smoothed,
        case
            when coverage.items_known_from < observations.as_of_date
                then {{ ratio('sums.items', 'sums.active_days') }}
        end as to_date_items_per_active_day,
        -- Progress where it is recorded, else the share of lessons begun.
        case
            when lesson_counts.lessons is null then null
            when coverage.progress_known_from < observations.as_of_date
                then {{ ratio(
                    'coalesce(sums.progress_gained, 0)',
                    '100 * lesson_counts.lessons'
                ) }}
            when coverage.lessons_known_from < observations.as_of_date
                then {{ ratio(
                    'coalesce(sums.lessons_started, 0)',
                    'lesson_counts.lessons'
                ) }}
        end as to_date_share_of_course,
        cast({{ dbt.datediff(
            'sums.last_date', 'observations.as_of_date', 'day'
        ) }} as {{ type_double() }}) as days_since_last_activity,
        cast({{ dbt.datediff(
            'observations.began_date', 'sums.first_date', 'day'
        ) }} as {{ type_double() }}) as days_from_enrolling_to_first_study
    from observations
    inner join sums
        on
            observations.enrollment_number = sums.enrollment_number
            and observations.as_of_date = sums.as_of_date
    left join coverage
        on observations.activity_scope_id = coverage.activity_scope_id
    left join lesson_counts
        on
            observations.course_id = lesson_counts.course_id
            and observations.course_run_id
            = coalesce(lesson_counts.course_run_id, observations.course_run_id)

)

select * from features
