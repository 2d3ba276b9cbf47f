with

bookings as (

    select
        student_id,
        assessment_id,
        scheduled_at,
        booked_at
    from {{ ref('stg_platform__assessment_bookings') }}
    where rejected_because is null

)

select * from bookings
