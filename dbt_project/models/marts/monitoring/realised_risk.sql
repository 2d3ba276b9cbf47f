{{ config(contract={'enforced': true}) }}

-- One row per run, week, risk band and whether a message came in between: what was
-- predicted, and what happened. Only scores of days after the run's training.

with

runs as (

    select * from {{ ref('int_monitored_runs') }}

),

scores as (

    select
        scores.*,
        cast({{ dbt.date_trunc('week', 'scores.as_of_date') }} as date) as as_of_week
    from {{ source('ml', 'student_scores') }} as scores
    inner join runs
        on scores.run_id = runs.run_id
    where scores.as_of_date >= runs.judged_from

),

-- A sitting has one answer, from whatever day one asks; the points of an earlier
-- scoring day are gone from student_targets, those at the leads are there.
answers as (

    select
        student_id,
        course_run_id,
        assessment_id,
        max(at_risk) as at_risk
    from {{ ref('student_targets') }}
    where label_status = 'matured'
    group by
        student_id,
        course_run_id,
        assessment_id

),

messages as (

    select * from {{ source('intervene', 'messages') }}
    where sent_at is not null

),

contacted as (

    select distinct
        scores.run_id,
        scores.student_id,
        scores.course_id,
        scores.assessment_id,
        scores.as_of_date
    from scores
    inner join messages
        on scores.student_id = messages.student_id
    where
        messages.sent_at >= scores.as_of_date
        and (scores.due_at is null or messages.sent_at < scores.due_at)

),

questions as (

    select
        scores.run_id,
        scores.as_of_week,
        scores.risk_band,
        contacted.student_id is not null as contacted_before_due,
        scores.student_id,
        {{ as_decimal('scores.risk_score', 18, 9) }} as risk_score,
        answers.at_risk
    from scores
    left join answers
        on
            scores.student_id = answers.student_id
            and scores.course_run_id = answers.course_run_id
            and scores.assessment_id = answers.assessment_id
    left join contacted
        on
            scores.run_id = contacted.run_id
            and scores.student_id = contacted.student_id
            and scores.course_id = contacted.course_id
            and scores.assessment_id = contacted.assessment_id
            and scores.as_of_date = contacted.as_of_date

),

by_student as (

    select
        run_id,
        as_of_week,
        risk_band,
        contacted_before_due,
        student_id,
        count(*) as points,
        count(at_risk) as answered,
        coalesce(sum(at_risk), 0) as failed,
        sum(case when at_risk is not null then risk_score end) as predicted
    from questions
    group by
        run_id,
        as_of_week,
        risk_band,
        contacted_before_due,
        student_id

),

totals as (

    select
        run_id,
        as_of_week,
        risk_band,
        contacted_before_due,
        cast(sum(points) as {{ dbt.type_bigint() }}) as points,
        cast(sum(answered) as {{ dbt.type_bigint() }}) as answered,
        {{ count_where('answered > 0') }} as students,
        sum(failed) as failed,
        sum(failed * failed) as failed_failed,
        sum(failed * answered) as failed_answered,
        sum(answered * answered) as answered_answered,
        sum(predicted) as predicted
    from by_student
    group by
        run_id,
        as_of_week,
        risk_band,
        contacted_before_due

),

observed as (

    select
        *,
        {{ ratio('failed', 'answered') }} as observed_rate,
        {{ ratio('predicted', 'answered') }} as mean_predicted,
        {{ clustered_variance(
            'failed', 'answered', 'failed_failed', 'failed_answered',
            'answered_answered', 'students'
        ) }} as variance
    from totals

),

with_effective_cases as (

    select
        *,
        {{ effective_cases('observed_rate', 'variance', 'answered', 'students') }}
            as effective_cases
    from observed

),

with_interval as (

    select
        *,
        {{ wilson_end('observed_rate', 'effective_cases', '-') }} as observed_low,
        {{ wilson_end('observed_rate', 'effective_cases', '+') }} as observed_high
    from with_effective_cases

),

realised_risk as (

    select
        run_id,
        as_of_week,
        risk_band,
        contacted_before_due,
        points,
        answered,
        students,
        mean_predicted,
        observed_rate,
        observed_low,
        observed_high,
        case
            when answered = 0 then 'no answer yet'
            when mean_predicted < observed_low then 'more failed than predicted'
            when mean_predicted > observed_high then 'fewer failed than predicted'
            else 'as predicted'
        end as note
    from with_interval

)

select * from realised_risk
