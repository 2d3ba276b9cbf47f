{{ config(materialized='table') }}

with

source as (

    select * from {{ raw_table('platform', 'lessons') }} as raw

),

courses as (

    select course_id from {{ ref('stg_platform__courses') }}
    where rejected_because is null

),

parsed as (

    select
        {{ blank_to_null('lesson_id') }} as lesson_id,
        {{ blank_to_null('course_id') }} as course_id,
        {{ blank_to_null('topic') }} as topic
    from source

),

matched as (

    select
        parsed.*,
        courses.course_id as known_course_id
    from parsed
    left join courses on parsed.course_id = courses.course_id

),

checked as (

    select
        *,
        case
            {{ reject_missing(['lesson_id', 'course_id']) }}
            when known_course_id is null then 'course_id is unknown'
        end as rejected_because
    from matched

),

numbered as (

    select
        *,
        row_number() over (
            partition by lesson_id, rejected_because
            order by course_id, topic nulls last
        ) as copy_number
    from checked

),

lessons as (

    select
        lesson_id,
        course_id,
        topic,
        case
            when rejected_because is null and copy_number > 1
                then 'lesson_id is repeated'
            else rejected_because
        end as rejected_because
    from numbered

)

select * from lessons
