-- One row per assessment that an enrollment meets, with the first attempt at it.
-- Holds the outcome: whoever reads it for a feature compares every time in it
-- with as_of_date.

with

due_versions as (

    select * from {{ ref('int_due_versions') }}

),

results as (

    select
        *,
        -- Nobody knows a score before the work is handed in.
        greatest(
            submitted_at,
            coalesce(
                score_known_at,
                {{ dbt.dateadd(
                    'day', var('grading_delay_days'), 'submitted_at'
                ) }}
            )
        ) as graded_at
    from {{ canonical('results') }}
    where not is_carried_over

),

-- Issues of one assessment share an id, runs do not: one row per id.
assessment_runs as (

    select
        assessment_id,
        max(course_run_id) as course_run_id
    from {{ canonical('assessments') }}
    group by assessment_id

),

final_versions as (

    select
        *,
        -- Work handed in during an earlier enrollment counts where both meet the
        -- same issue; a self-paced one is asked anew.
        case
            when issue_due_at is null then began_at
            else min(began_at) over (
                partition by student_id, assessment_id, issue_due_at
            )
        end as results_from
    from due_versions
    where is_final

),

attempts as (

    select
        final_versions.student_id,
        final_versions.course_run_id,
        final_versions.assessment_id,
        results.submitted_at,
        results.score,
        results.passed,
        results.graded_at,
        row_number() over (
            partition by
                final_versions.student_id,
                final_versions.course_run_id,
                final_versions.assessment_id
            order by results.submitted_at, results.result_id
        ) as attempt
    from final_versions
    inner join results
        on
            final_versions.student_id = results.student_id
            and final_versions.assessment_id = results.assessment_id
    inner join assessment_runs
        on final_versions.assessment_id = assessment_runs.assessment_id
    where
        -- An assessment of one run takes every result; a shared one those since
        -- the enrollment began.
        assessment_runs.course_run_id is not null
        or results.submitted_at >= final_versions.results_from

),

sittings as (

    select
        final_versions.student_id,
        final_versions.course_id,
        final_versions.course_run_id,
        final_versions.assessment_id,
        final_versions.kind,
        final_versions.weight,
        final_versions.pass_mark,
        final_versions.assessment_position,
        final_versions.issue_due_at,
        final_versions.due_at as outcome_due_at,
        attempts.submitted_at,
        attempts.score,
        case
            when attempts.passed is not null then attempts.passed
            when attempts.score is null then null
            when final_versions.pass_mark is null then null
            else attempts.score >= final_versions.pass_mark
        end as passed,
        attempts.graded_at,
        -- When anybody first handed this issue in: before that nobody knows
        -- whether results of it are recorded at all. Null for a student who had
        -- nothing to sit after all.
        case
            when final_versions.carried_over_at is null
                then min(attempts.submitted_at) over (
                    partition by
                        final_versions.assessment_id,
                        final_versions.issue_due_at
                )
        end as first_result_at
    from final_versions
    left join attempts
        on
            final_versions.student_id = attempts.student_id
            and final_versions.course_run_id = attempts.course_run_id
            and final_versions.assessment_id = attempts.assessment_id
            and attempts.attempt = 1

)

select * from sittings
