with

source as (

    select * from {{ raw_table('platform', 'signed_in_events') }} as raw

),

students as (

    select student_id from {{ ref('stg_platform__students') }}
    where rejected_because is null

),

parsed as (

    select
        {{ blank_to_null('student_id') }} as student_id,
        {{ parse_timestamp('created_at') }} as created_at
    from source

),

matched as (

    select
        parsed.*,
        students.student_id as known_student_id
    from parsed
    left join students on parsed.student_id = students.student_id

),

signed_in_events as (

    select
        student_id,
        created_at,
        case
            {{ reject_missing(['student_id']) }}
            when known_student_id is null then 'student_id is unknown'
            {{ reject_bad_time('created_at') }}
        end as rejected_because
    from matched

)

select * from signed_in_events
