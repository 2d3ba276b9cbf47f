{{ config(schema='personal') }}

with

student_contacts as (

    select
        student_id,
        first_name,
        email,
        phone,
        locale,
        timezone,
        preferred_channel,
        opted_out_at
    from {{ ref('stg_platform__student_contacts') }}
    where rejected_because is null

)

select * from student_contacts
