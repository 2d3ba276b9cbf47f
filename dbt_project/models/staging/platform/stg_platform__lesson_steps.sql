-- What each row of lesson_progresses tells that was true at its created_at.

{% set declared = var('lesson_progresses_append_only') %}
{% set append_only = setting('source_system') == 'sample'
    if declared is none else declared %}

with

lesson_progresses as (

    select * from {{ ref('stg_platform__lesson_progresses') }}
    where rejected_because is null

),

{% if append_only %}
with_earlier as (

    select
        student_id,
        course_id,
        lesson_id,
        created_at,
        progress,
        max(progress) over (
            partition by student_id, lesson_id
            order by created_at, progress
            rows between unbounded preceding and 1 preceding
        ) as earlier_progress
    from lesson_progresses

),

-- The first row of a lesson is its start, whatever progress it shows: whether
-- more follows was not known then.
lesson_steps as (

    select
        student_id,
        course_id,
        lesson_id,
        created_at,
        greatest(progress - coalesce(earlier_progress, 0), 0)
            as progress_gained,
        case when earlier_progress is null then 1 else 0 end
            as is_lesson_start,
        case
            when progress = 100 and coalesce(earlier_progress, 0) < 100 then 1
            else 0
        end as is_lesson_finish
    from with_earlier

)
{% else %}
-- Overwritten: the row shows the newest progress, not that of created_at.
lesson_steps as (

    select
        student_id,
        course_id,
        lesson_id,
        created_at,
        cast(null as double) as progress_gained,
        1 as is_lesson_start,
        cast(null as {{ dbt.type_int() }}) as is_lesson_finish
    from lesson_progresses

)
{% endif %}

select * from lesson_steps
