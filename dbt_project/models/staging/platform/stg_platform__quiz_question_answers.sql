with

source as (

    select * from {{ raw_table('platform', 'quiz_question_answers') }} as raw

),

students as (

    select student_id from {{ ref('stg_platform__students') }}
    where rejected_because is null

),

lessons as (

    select lesson_id from {{ ref('stg_platform__lessons') }}
    where rejected_because is null

),

-- With the number of lessons: where there is no table of them, there is nothing to hold
-- a lesson against.
courses as (

    select
        course_id,
        (select count(*) from lessons) as lessons
    from {{ ref('stg_platform__courses') }}
    where rejected_because is null

),

parsed as (

    select
        {{ blank_to_null('student_id') }} as student_id,
        {{ blank_to_null('course_id') }} as course_id,
        {{ blank_to_null('lesson_id') }} as lesson_id,
        {{ blank_to_null('quiz_question_id') }} as quiz_question_id,
        attempt as raw_attempt,
        {{ parse_integer('attempt') }} as attempt,
        {{ lower_case(blank_to_null('verdict')) }} as verdict,
        {{ parse_timestamp('created_at') }} as created_at
    from source

),

matched as (

    select
        parsed.*,
        students.student_id as known_student_id,
        courses.course_id as known_course_id,
        lessons.lesson_id as known_lesson_id,
        courses.lessons
    from parsed
    left join students on parsed.student_id = students.student_id
    left join courses on parsed.course_id = courses.course_id
    left join lessons on parsed.lesson_id = lessons.lesson_id

),

quiz_question_answers as (

    select
        student_id,
        course_id,
        lesson_id,
        quiz_question_id,
        attempt,
        verdict,
        created_at,
        case
            {{ reject_missing([
                'student_id', 'course_id', 'quiz_question_id',
            ]) }}
            when known_student_id is null then 'student_id is unknown'
            when known_course_id is null then 'course_id is unknown'
            when
                lesson_id is not null
                and known_lesson_id is null
                and lessons > 0
                then 'lesson_id is unknown'
            {{ reject_bad_time('created_at') }}
            {{ reject_bad_number('attempt', 0, 1000000) }}
            when verdict not in ('correct', 'incorrect')
                then 'verdict is unknown'
        end as rejected_because
    from matched

)

select * from quiz_question_answers
