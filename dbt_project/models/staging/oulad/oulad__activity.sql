{%- set no_flag = 'cast(null as ' ~ dbt.type_int() ~ ')' %}

with

clicks as (

    select * from {{ ref('stg_oulad__student_vle') }}
    where rejected_because is null

),

-- A page is a lesson: started and finished by its first click. Where the pages
-- are not known (no vle), nothing is known of lessons either.
activity as (

    select
        id_student as student_id,
        code_module as course_id,
        course_run_id,
        'event' as activity_type,
        coalesce(activity_type, 'unknown') as event_type,
        id_site as item_id,
        cast(sum_click as double) as quantity,
        cast(null as double) as minutes,
        case
            when is_known_site = 1
                then cast(is_first_click * 100 as double)
        end as progress_gained,
        case when is_known_site = 1 then is_first_click end as is_lesson_start,
        case when is_known_site = 1 then is_first_click end
            as is_lesson_finish,
        {{ no_flag }} as is_correct,
        {{ no_flag }} as is_first_attempt,
        clicked_at as occurred_at,
        clicked_at as known_at
    from clicks

)

select * from activity
