-- From when is activity recorded? Before that it is unknown, not absent.

with

daily as (

    select
        *,
        coalesce(course_run_id, 'all') as activity_scope_id
    from {{ ref('int_daily_activity') }}

),

coverage as (

    select
        activity_scope_id,
        min(case when facts > sessions then known_date end)
            as study_known_from,
        min(case when events > 0 then known_date end) as events_known_from,
        min(case when sessions > 0 then known_date end)
            as sessions_known_from,
        min(case when minutes is not null then known_date end)
            as minutes_known_from,
        min(case when lessons_started > 0 then known_date end)
            as lessons_known_from,
        min(case when progress_gained is not null then known_date end)
            as progress_known_from,
        min(case when quiz_answers > 0 then known_date end)
            as quiz_known_from,
        min(case when items > 0 then known_date end) as items_known_from
    from daily
    group by activity_scope_id

)

select * from coverage
