with

source as (

    select * from {{ raw_table('platform', 'lesson_progresses') }} as raw

),

students as (

    select student_id from {{ ref('stg_platform__students') }}
    where rejected_because is null

),

lessons as (

    select
        lesson_id,
        course_id
    from {{ ref('stg_platform__lessons') }}
    where rejected_because is null

),

parsed as (

    select
        {{ blank_to_null('student_id') }} as student_id,
        {{ blank_to_null('lesson_id') }} as lesson_id,
        progress as raw_progress,
        {{ parse_number('progress') }} as progress,
        {{ parse_timestamp('created_at') }} as created_at,
        -- Not used: a row tells only what was true at created_at.
        {{ parse_timestamp('updated_at') }} as updated_at
    from source

),

matched as (

    select
        parsed.*,
        students.student_id as known_student_id,
        lessons.lesson_id as known_lesson_id,
        lessons.course_id
    from parsed
    left join students on parsed.student_id = students.student_id
    left join lessons on parsed.lesson_id = lessons.lesson_id

),

lesson_progresses as (

    select
        student_id,
        lesson_id,
        course_id,
        progress,
        created_at,
        updated_at,
        case
            {{ reject_missing(['student_id', 'lesson_id']) }}
            when known_student_id is null then 'student_id is unknown'
            when known_lesson_id is null then 'lesson_id is unknown'
            {{ reject_bad_time('created_at') }}
            {{ reject_bad_number('progress', 0, 100) }}
            when progress is null then 'progress is missing'
        end as rejected_because
    from matched

)

select * from lesson_progresses
