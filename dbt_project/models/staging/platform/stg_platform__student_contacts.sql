{{ config(schema='personal') }}

with

source as (

    select * from {{ raw_table('platform', 'student_contacts') }} as raw

),

students as (

    select student_id from {{ ref('stg_platform__students') }}
    where rejected_because is null

),

parsed as (

    select
        {{ blank_to_null('student_id') }} as student_id,
        {{ blank_to_null('first_name') }} as first_name,
        {{ blank_to_null('email') }} as email,
        {{ blank_to_null('phone') }} as phone,
        {{ blank_to_null('locale') }} as locale,
        {{ blank_to_null('timezone') }} as timezone,
        {{ lower_case(blank_to_null('preferred_channel')) }} as preferred_channel,
        opted_out_at as raw_opted_out_at,
        {{ parse_timestamp('opted_out_at') }} as opted_out_at
    from source

),

matched as (

    select
        parsed.*,
        students.student_id as known_student_id
    from parsed
    left join students on parsed.student_id = students.student_id

),

checked as (

    select
        *,
        case
            {{ reject_missing(['student_id']) }}
            when known_student_id is null then 'student_id is unknown'
            -- Without a contact nobody is written to: safer than losing this.
            {{ reject_bad_optional_time('opted_out_at') }}
        end as rejected_because
    from matched

),

-- Of several rows the one that was opted out first stays.
numbered as (

    select
        *,
        row_number() over (
            partition by student_id, rejected_because
            order by
                opted_out_at nulls last,
                email nulls last,
                phone nulls last,
                first_name nulls last,
                locale nulls last,
                timezone nulls last,
                preferred_channel nulls last
        ) as copy_number
    from checked

),

student_contacts as (

    select
        student_id,
        first_name,
        email,
        phone,
        locale,
        timezone,
        -- What cannot be served is no preference.
        case
            when preferred_channel in ('email', 'sms', 'in_app')
                then preferred_channel
        end as preferred_channel,
        opted_out_at,
        case
            when rejected_because is null and copy_number > 1
                then 'student_id is repeated'
            else rejected_because
        end as rejected_because
    from numbered

)

select * from student_contacts
