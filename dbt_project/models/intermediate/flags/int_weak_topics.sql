-- Topics in which the student answers quiz questions poorly, from answers known
-- before the day that is scored.

with

answers as (

    select * from {{ canonical('activity') }}
    where
        activity_type = 'quiz_answer'
        -- An answer that nobody judged says nothing of the topic.
        and is_correct is not null

),

lessons as (

    select
        course_id,
        lesson_id,
        max(topic) as topic
    from {{ canonical('lessons') }}
    group by
        course_id,
        lesson_id

),

scored as (

    select distinct
        student_id,
        course_id,
        course_run_id,
        as_of_date,
        began_at
    from {{ ref('int_prediction_points') }}
    where is_scoring_point

),

by_topic as (

    select
        scored.student_id,
        scored.course_run_id,
        scored.as_of_date,
        lessons.topic,
        count(*) as answers,
        {{ ratio('sum(answers.is_correct)', 'count(*)') }} as correct_rate
    from scored
    inner join answers
        on
            scored.student_id = answers.student_id
            and scored.course_id = answers.course_id
    inner join lessons
        on
            answers.course_id = lessons.course_id
            and answers.item_id = lessons.lesson_id
    where
        answers.occurred_at >= scored.began_at
        and answers.occurred_at < scored.as_of_date
        and answers.known_at < scored.as_of_date
        and lessons.topic is not null
    group by
        scored.student_id,
        scored.course_run_id,
        scored.as_of_date,
        lessons.topic

),

ranked as (

    select
        *,
        row_number() over (
            partition by student_id, course_run_id, as_of_date
            order by correct_rate, answers desc, topic
        ) as weakness
    from by_topic
    where
        answers >= {{ var('weak_topic_min_answers') }}
        and correct_rate < {{ var('weak_topic_below') }}

),

-- Concatenated by hand: ordered list aggregates differ between engines.
weak_topics as (

    select
        student_id,
        course_run_id,
        as_of_date,
        {{ dbt.concat([
            'max(case when weakness = 1 then topic end)',
            "coalesce(max(case when weakness = 2 then "
            ~ dbt.concat(["'; '", 'topic']) ~ " end), '')",
            "coalesce(max(case when weakness = 3 then "
            ~ dbt.concat(["'; '", 'topic']) ~ " end), '')",
        ]) }} as weak_topics
    from ranked
    group by
        student_id,
        course_run_id,
        as_of_date

)

select * from weak_topics
