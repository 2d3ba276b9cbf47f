-- Students cannot book another time.

with

bookings as (

    select
        cast(null as {{ dbt.type_string() }}) as student_id,
        cast(null as {{ dbt.type_string() }}) as assessment_id,
        cast(null as {{ dbt.type_timestamp() }}) as scheduled_at,
        cast(null as {{ dbt.type_timestamp() }}) as booked_at
    where 1 = 0

)

select * from bookings
