{{ config(materialized='table') }}

-- When a purchase was in force and known. One that was over before it began (it
-- was withdrawn, or recorded after its validity) never was one.

with

subscriptions as (

    select * from {{ ref('stg_platform__subscriptions') }}
    where rejected_because is null

),

effective as (

    select
        subscription_id,
        student_id,
        course_id,
        valid_to,
        -- Backdated purchases are known from when they were made.
        greatest(valid_from, created_at) as started_at,
        least(
            coalesce(valid_to, {{ far_future() }}),
            coalesce(withdrawn_at, {{ far_future() }})
        ) as ended_at,
        case
            when
                withdrawn_at < coalesce(valid_to, {{ far_future() }})
                then 1
            else 0
        end as is_withdrawn
    from subscriptions

),

in_force as (

    select * from effective
    where ended_at > started_at

),

spells as (

    select
        subscription_id,
        student_id,
        course_id,
        started_at,
        ended_at,
        valid_to,
        is_withdrawn,
        run_started_at
    from {{ with_run_start('in_force', ['student_id', 'course_id']) }} as runs

)

select * from spells
