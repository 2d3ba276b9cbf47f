{{ config(materialized='table') }}

with

source as (

    select * from {{ raw_table('platform', 'courses') }} as raw

),

parsed as (

    select
        {{ blank_to_null('course_id') }} as course_id,
        {{ blank_to_null('title') }} as title,
        {{ blank_to_null('category') }} as category,
        {{ parse_number('duration_minutes') }} as duration_minutes
    from source

),

checked as (

    select
        *,
        case
            {{ reject_missing(['course_id']) }}
        end as rejected_because
    from parsed

),

numbered as (

    select
        *,
        row_number() over (
            partition by course_id, rejected_because
            order by
                title nulls last,
                category nulls last,
                duration_minutes nulls last
        ) as copy_number
    from checked

),

courses as (

    select
        course_id,
        title,
        category,
        -- A description: what cannot be true is unknown.
        case when duration_minutes >= 0 then duration_minutes end
            as duration_minutes,
        case
            when rejected_because is null and copy_number > 1
                then 'course_id is repeated'
            else rejected_because
        end as rejected_because
    from numbered

)

select * from courses
