-- How the student has done so far: in this run, and in other runs.

with

observations as (

    select * from {{ ref('int_observations') }}

),

enrollments as (

    select * from {{ ref('int_enrollments') }}

),

due_versions as (

    select * from {{ ref('int_due_versions') }}

),

sittings as (

    select * from {{ ref('int_sittings') }}

),

-- Every sitting of the student with its due time as known that day.
known_sittings as (

    select
        observations.student_id,
        observations.course_run_id,
        observations.as_of_date,
        case
            when due_versions.course_run_id = observations.course_run_id then 1
            else 0
        end as is_this_run,
        case
            when due_versions.kind in ({{ target_kinds() }}) then 1
            else 0
        end as is_predicted_kind,
        due_versions.due_at,
        due_versions.assessment_id,
        {{ as_decimal('due_versions.weight') }} as weight,
        {{ dbt.dateadd(
            'day', var('grace_days'), 'due_versions.due_at'
        ) }} as accepted_until,
        case
            when sittings.submitted_at < observations.as_of_date
                then sittings.submitted_at
        end as submitted_at,
        -- Decimals, because a sum of floats depends on the order of the rows.
        case
            when sittings.graded_at < observations.as_of_date
                then {{ as_decimal('sittings.score') }}
        end as score,
        case
            when sittings.graded_at >= observations.as_of_date then null
            when sittings.passed then 1
            when not sittings.passed then 0
        end as passed
    from observations
    inner join due_versions
        on observations.student_id = due_versions.student_id
    inner join sittings
        on
            due_versions.student_id = sittings.student_id
            and due_versions.course_run_id = sittings.course_run_id
            and due_versions.assessment_id = sittings.assessment_id
    where
        due_versions.began_at < observations.as_of_date
        and (
            due_versions.known_from is null
            or due_versions.known_from < observations.as_of_date
        )
        and (
            due_versions.known_until is null
            or due_versions.known_until >= observations.as_of_date
        )

),

judged as (

    select
        *,
        case when submitted_at is null then 1 else 0 end as is_missed,
        case when submitted_at > accepted_until then 1 else 0 end as is_late,
        {{ dbt.datediff(
            'submitted_at', 'due_at', 'day'
        ) }} as days_early,
        row_number() over (
            partition by student_id, course_run_id, as_of_date, is_this_run
            order by due_at desc, assessment_id
        ) as recency
    from known_sittings
    -- Within the grace period nothing is missed yet.
    where accepted_until < as_of_date

),

sums as (

    select
        student_id,
        course_run_id,
        as_of_date,
        sum(is_this_run) as due,
        sum(is_this_run * is_missed) as missed,
        sum(is_this_run * is_late) as late,
        sum(is_this_run * passed) as passed,
        count(case when is_this_run = 1 then passed end) as judged_results,
        sum(case when is_this_run = 1 then weight * is_missed end)
            as missed_weight,
        sum(case when is_this_run = 1 then weight end) as due_weight,
        sum(case when is_this_run = 1 then score end) as score_sum,
        count(case when is_this_run = 1 then score end) as scores,
        max(case when is_this_run = 1 then due_at end) as last_due_at,
        {% for name, recency in {'last': 1, 'previous': 2}.items() %}
        {% for measure in ['is_missed', 'score', 'days_early'] %}
        max(case
            when is_this_run = 1 and recency = {{ recency }} then {{ measure }}
        end) as {{ name }}_{{ measure | replace('is_', '') }},
        {% endfor %}
        {% endfor %}
        -- How many of the newest were missed in a row.
        min(case when is_this_run = 1 and is_missed = 0 then recency end) - 1
            as missed_in_a_row,
        max(case when is_this_run = 1 then submitted_at end) as last_handed_in,
        sum(case when is_this_run = 1 then days_early end) as days_early,
        count(case when is_this_run = 1 then submitted_at end) as handed_in,
        sum(1 - is_this_run) as due_elsewhere,
        sum((1 - is_this_run) * is_missed) as missed_elsewhere,
        sum(case when is_this_run = 0 then score end) as score_sum_elsewhere,
        count(case when is_this_run = 0 then score end) as scores_elsewhere
    from judged
    group by
        student_id,
        course_run_id,
        as_of_date

),

-- Whether due yet or not: work of this run handed in ahead of the due time, and
-- results of other runs, of the kinds that are predicted: an exam failed elsewhere
-- says more about an exam than any number of quizzes.
results as (

    select
        student_id,
        course_run_id,
        as_of_date,
        count(case
            when
                is_this_run = 1
                and (due_at is null or due_at >= as_of_date)
                then submitted_at
        end) as handed_in_early,
        {{ count_where(
            'is_this_run = 0 and is_predicted_kind = 1 and passed = 1'
        ) }} as passed_elsewhere,
        {{ count_where(
            'is_this_run = 0 and is_predicted_kind = 1 and passed = 0'
        ) }} as failed_elsewhere
    from known_sittings
    group by
        student_id,
        course_run_id,
        as_of_date

),

elsewhere as (

    select
        observations.student_id,
        observations.course_run_id,
        observations.as_of_date,
        count(*) as enrollments,
        sum(case
            when enrollments.withdrawn_at < observations.as_of_date then 1
            else 0
        end) as withdrawn,
        sum(case
            when
                enrollments.withdrawn_at < observations.as_of_date
                or enrollments.valid_to < observations.as_of_date then 0
            else 1
        end) as open_now
    from observations
    inner join enrollments
        on
            observations.student_id = enrollments.student_id
            and observations.course_run_id <> enrollments.course_run_id
    where enrollments.began_at < observations.as_of_date
    group by
        observations.student_id,
        observations.course_run_id,
        observations.as_of_date

),

features as (

    select
        observations.student_id,
        observations.course_run_id,
        observations.as_of_date,
        {{ as_number('coalesce(sums.due, 0)') }} as record_assessments_due,
        {{ as_number('coalesce(sums.missed, 0)') }} as record_assessments_missed,
        {{ as_number('coalesce(sums.late, 0)') }} as record_assessments_late,
        {{ ratio('sums.missed', 'sums.due') }} as record_missed_share,
        {{ ratio('sums.missed_weight', 'sums.due_weight') }}
            as record_missed_weight_share,
        {{ ratio('sums.passed', 'sums.judged_results') }} as record_passed_share,
        {{ ratio('sums.score_sum', 'sums.scores') }} as record_mean_score,
        {{ as_number('sums.last_score') }} as record_last_score,
        {{ as_number('sums.last_missed') }} as record_last_missed,
        {{ as_number('sums.last_days_early') }} as record_last_days_early,
        {{ as_number(dbt.datediff(
            'sums.last_due_at', 'observations.as_of_date', 'day'
        )) }} as record_days_since_last_due,
        {{ as_number('sums.previous_score') }} as record_previous_score,
        {{ as_number('sums.previous_missed') }} as record_previous_missed,
        {{ as_number('sums.previous_days_early') }}
            as record_previous_days_early,
        case
            when sums.due > 0
                then {{ as_number('coalesce(sums.missed_in_a_row, sums.due)') }}
        end as record_missed_in_a_row,
        {{ ratio('sums.days_early', 'sums.handed_in') }}
            as record_mean_days_early,
        {{ as_number(dbt.datediff(
            'sums.last_handed_in', 'observations.as_of_date', 'day'
        )) }} as record_days_since_handing_in,
        {{ as_number('coalesce(results.handed_in_early, 0)') }}
            as record_handed_in_early,
        {{ as_number('observations.attempt_number - 1') }}
            as record_earlier_attempts,
        {{ as_number('coalesce(elsewhere.enrollments, 0)') }}
            as record_other_enrollments,
        {{ as_number('coalesce(elsewhere.withdrawn, 0)') }}
            as record_other_withdrawn,
        {{ as_number('coalesce(elsewhere.open_now, 0)') }}
            as record_other_open,
        {{ ratio('sums.missed_elsewhere', 'sums.due_elsewhere') }}
            as record_other_missed_share,
        {{ ratio('sums.score_sum_elsewhere', 'sums.scores_elsewhere') }}
            as record_other_mean_score,
        {{ as_number('coalesce(results.passed_elsewhere, 0)') }}
            as record_other_passed,
        {{ as_number('coalesce(results.failed_elsewhere, 0)') }}
            as record_other_failed
    from observations
    left join sums
        on
            observations.student_id = sums.student_id
            and observations.course_run_id = sums.course_run_id
            and observations.as_of_date = sums.as_of_date
    left join results
        on
            observations.student_id = results.student_id
            and observations.course_run_id = results.course_run_id
            and observations.as_of_date = results.as_of_date
    left join elsewhere
        on
            observations.student_id = elsewhere.student_id
            and observations.course_run_id = elsewhere.course_run_id
            and observations.as_of_date = elsewhere.as_of_date

)

select * from features
