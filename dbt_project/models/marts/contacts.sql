{{
    config(
        alias='student_contacts',
        schema='personal',
        contract={'enforced': true},
    )
}}

-- The one table with personal data: never published, never a feature, never in
-- a prompt. Read when a message is addressed.

with

contacts as (

    select
        student_id,
        first_name,
        email,
        phone,
        locale,
        timezone,
        preferred_channel,
        opted_out_at
    from {{ canonical('student_contacts') }}

)

select * from contacts
