{{ config(materialized='table') }}

with

source as (

    select * from {{ raw_table('platform', 'subscriptions') }} as raw

),

students as (

    select student_id from {{ ref('stg_platform__students') }}
    where rejected_because is null

),

courses as (

    select course_id from {{ ref('stg_platform__courses') }}
    where rejected_because is null

),

parsed as (

    select
        {{ blank_to_null('subscription_id') }} as subscription_id,
        {{ blank_to_null('student_id') }} as student_id,
        {{ blank_to_null('course_id') }} as course_id,
        {{ blank_to_null('tier') }} as tier,
        -- A description: what does not parse is unknown.
        {{ parse_integer('amount_cents') }} as amount_cents,
        {{ parse_timestamp('created_at') }} as created_at,
        {{ parse_timestamp('valid_from') }} as valid_from,
        valid_to as raw_valid_to,
        {{ parse_timestamp('valid_to') }} as valid_to,
        withdrawn_at as raw_withdrawn_at,
        {{ parse_timestamp('withdrawn_at') }} as withdrawn_at
    from source

),

matched as (

    select
        parsed.*,
        students.student_id as known_student_id,
        courses.course_id as known_course_id
    from parsed
    left join students on parsed.student_id = students.student_id
    left join courses on parsed.course_id = courses.course_id

),

checked as (

    select
        *,
        case
            {{ reject_missing(['subscription_id', 'student_id']) }}
            when known_student_id is null then 'student_id is unknown'
            when course_id is not null and known_course_id is null
                then 'course_id is unknown'
            {{ reject_bad_time('created_at') }}
            {{ reject_bad_time('valid_from', may_be_future=true) }}
            {{ reject_bad_optional_time('valid_to', may_be_future=true) }}
            {{ reject_bad_optional_time('withdrawn_at') }}
            when valid_to < valid_from then 'valid_to is before valid_from'
            -- Money given back is not a purchase.
            when amount_cents < 0 then 'amount_cents is negative'
        end as rejected_because
    from matched

),

-- The earliest row of an id stays: a row that is added later changes nothing.
numbered as (

    select
        *,
        row_number() over (
            partition by subscription_id, rejected_because
            order by
                created_at,
                valid_from,
                valid_to nulls last,
                withdrawn_at nulls last,
                student_id,
                course_id nulls last,
                tier nulls last,
                amount_cents nulls last
        ) as copy_number
    from checked

),

subscriptions as (

    select
        subscription_id,
        student_id,
        course_id,
        tier,
        amount_cents,
        created_at,
        valid_from,
        valid_to,
        withdrawn_at,
        case
            when rejected_because is null and copy_number > 1
                then 'subscription_id is repeated'
            else rejected_because
        end as rejected_because
    from numbered

)

select * from subscriptions
