{{ config(materialized='table') }}

with

spells as (

    select * from {{ ref('stg_platform__spells') }}

),

touches as (

    select * from {{ ref('stg_platform__course_touches') }}

),

-- An unbroken run of subscriptions to all courses gives a course from its first
-- touch on.
first_touches as (

    select
        student_id,
        course_id,
        run_started_at,
        min(touched_at) as touched_at
    from touches
    group by
        student_id,
        course_id,
        run_started_at

),

course_spells as (

    select
        subscription_id,
        student_id,
        course_id,
        started_at,
        ended_at,
        valid_to,
        is_withdrawn
    from spells
    where course_id is not null

    union all

    select
        spells.subscription_id,
        spells.student_id,
        first_touches.course_id,
        greatest(spells.started_at, first_touches.touched_at) as started_at,
        spells.ended_at,
        spells.valid_to,
        spells.is_withdrawn
    from spells
    inner join first_touches
        on
            spells.student_id = first_touches.student_id
            and spells.run_started_at = first_touches.run_started_at
            and spells.ended_at > first_touches.touched_at
    where spells.course_id is null

),

runs as (

    select
        *,
        max(ended_at) over (
            partition by student_id, course_id, run_started_at
        ) as run_ended_at
    from {{ with_run_start('course_spells', ['student_id', 'course_id']) }}
        as course_runs

),

-- Only the spells that begin an enrollment were known when it began.
merged as (

    select
        student_id,
        course_id,
        run_started_at as began_at,
        min(case when started_at = run_started_at then subscription_id end)
            as first_subscription_id,
        max(case
            when started_at = run_started_at
                then coalesce(valid_to, {{ far_future() }})
        end) as valid_to,
        -- Withdrawn, if no spell that lasts to the end ended by itself.
        min(case when ended_at = run_ended_at then is_withdrawn end)
            as is_withdrawn,
        max(run_ended_at) as run_ended_at
    from runs
    group by
        student_id,
        course_id,
        run_started_at

),

enrollments as (

    select
        student_id,
        course_id,
        {{ dbt.concat(['course_id', "':'", 'first_subscription_id']) }}
            as course_run_id,
        -- Purchases have no classmates: a peer is whoever studies the course.
        course_id as peer_group_id,
        'all' as activity_scope_id,
        cast(null as {{ dbt.type_timestamp() }}) as run_started_at,
        began_at,
        case when valid_to < {{ far_future() }} then valid_to end as valid_to,
        case when is_withdrawn = 1 then run_ended_at end as withdrawn_at,
        cast(null as {{ dbt.type_int() }}) as earlier_attempts
    from merged

)

select * from enrollments
