-- What is this? Sittings due from AS_OF_DATE until the longest lead later, and open
-- ones, that have no scoring point or several (rows_expected and rows_found say
-- which), and scoring points without such a sitting. Counted anew from enrollments,
-- due times and results, not from the model's own steps.
--
-- When does it matter? Every day: a student without a scoring point is never flagged,
-- however likely to fail.
--
-- How do I fix it? See scoring_candidates, `known` and `owned` in
-- int_prediction_points.

with

due_soon as (

    select
        due_versions.*,
        calendar.as_of_date,
        row_number() over (
            partition by
                due_versions.student_id,
                due_versions.course_id,
                due_versions.assessment_id
            order by due_versions.began_at desc, due_versions.course_run_id desc
        ) as latest_first
    from {{ ref('int_due_versions') }} as due_versions
    cross join {{ ref('int_calendar') }} as calendar
    where
        due_versions.kind in ({{ target_kinds() }})
        and due_versions.began_at < calendar.as_of_date
        and coalesce(
            due_versions.known_from < calendar.as_of_date, true
        )
        and coalesce(
            due_versions.known_until >= calendar.as_of_date, true
        )

),

expected as (

    select
        due_soon.student_id,
        due_soon.course_run_id,
        due_soon.assessment_id
    from due_soon
    inner join {{ ref('int_enrollments') }} as enrollments
        on
            due_soon.student_id = enrollments.student_id
            and due_soon.course_run_id = enrollments.course_run_id
    left join {{ ref('int_sittings') }} as sittings
        on
            due_soon.student_id = sittings.student_id
            and due_soon.course_run_id = sittings.course_run_id
            and due_soon.assessment_id = sittings.assessment_id
    where
        due_soon.latest_first = 1
        and coalesce(
            due_soon.due_at >= due_soon.as_of_date
            and due_soon.due_at < {{ add_days(
                'due_soon.as_of_date', setting('prediction_leads') | first + 1
            ) }},
            true
        )
        and coalesce(enrollments.withdrawn_at >= due_soon.as_of_date, true)
        and coalesce(sittings.submitted_at >= due_soon.as_of_date, true)
        {% if setting('target_definition') == 'course_repurchased' %}
        and enrollments.attempt_number = 1
        {% elif setting('target_definition') == 'assessment_missed' %}
        and due_soon.due_at is not null
        {% endif %}

),

both_sides as (

    select
        student_id,
        course_run_id,
        assessment_id,
        1 as is_expected,
        0 as is_found
    from expected

    union all

    select
        student_id,
        course_run_id,
        assessment_id,
        0 as is_expected,
        1 as is_found
    from {{ ref('student_targets') }}
    where is_scoring_point

),

unbalanced as (

    select
        student_id,
        course_run_id,
        assessment_id,
        sum(is_expected) as rows_expected,
        sum(is_found) as rows_found
    from both_sides
    group by
        student_id,
        course_run_id,
        assessment_id
    having sum(is_expected) <> 1 or sum(is_found) <> 1

)

select * from unbalanced
