{{ config(materialized='table') }}

with

subscriptions as (

    select * from {{ ref('stg_platform__subscriptions') }}
    where rejected_because is null

),

touches as (

    select * from {{ ref('stg_platform__course_touches') }}

),

-- What was over when it was recorded never was a purchase. One withdrawn later,
-- even before it began, was: until then nobody could know.
of_one_course as (

    select
        subscription_id as purchase_id,
        student_id,
        course_id,
        created_at as purchased_at
    from subscriptions
    where
        course_id is not null
        and created_at < coalesce(valid_to, {{ far_future() }})
        and created_at < coalesce(withdrawn_at, {{ far_future() }})

),

of_all_courses as (

    select
        subscription_id as purchase_id,
        student_id,
        course_id,
        touched_at as purchased_at
    from touches

),

purchases as (

    select * from of_one_course

    union all

    select * from of_all_courses

)

select * from purchases
