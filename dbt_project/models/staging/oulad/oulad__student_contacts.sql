{{ config(schema='personal') }}

-- The dataset is anonymous: nobody can be written to.

with

student_contacts as (

    select
        cast(null as {{ dbt.type_string() }}) as student_id,
        cast(null as {{ dbt.type_string() }}) as first_name,
        cast(null as {{ dbt.type_string() }}) as email,
        cast(null as {{ dbt.type_string() }}) as phone,
        cast(null as {{ dbt.type_string() }}) as locale,
        cast(null as {{ dbt.type_string() }}) as timezone,
        cast(null as {{ dbt.type_string() }}) as preferred_channel,
        cast(null as {{ dbt.type_timestamp() }}) as opted_out_at
    where 1 = 0

)

select * from student_contacts
