with

source as (

    select * from {{ raw_table('platform', 'assessment_bookings') }} as raw

),

students as (

    select student_id from {{ ref('stg_platform__students') }}
    where rejected_because is null

),

assessments as (

    select distinct assessment_id from {{ ref('stg_platform__assessments') }}
    where rejected_because is null

),

parsed as (

    select
        {{ blank_to_null('student_id') }} as student_id,
        {{ blank_to_null('assessment_id') }} as assessment_id,
        {{ parse_timestamp('scheduled_at') }} as scheduled_at,
        {{ parse_timestamp('booked_at') }} as booked_at
    from source

),

matched as (

    select
        parsed.*,
        students.student_id as known_student_id,
        assessments.assessment_id as known_assessment_id
    from parsed
    left join students on parsed.student_id = students.student_id
    left join assessments
        on parsed.assessment_id = assessments.assessment_id

),

assessment_bookings as (

    select
        student_id,
        assessment_id,
        scheduled_at,
        booked_at,
        case
            {{ reject_missing(['student_id', 'assessment_id']) }}
            when known_student_id is null then 'student_id is unknown'
            when known_assessment_id is null then 'assessment_id is unknown'
            {{ reject_bad_time('scheduled_at', may_be_future=true) }}
            {{ reject_bad_time('booked_at') }}
        end as rejected_because
    from matched

)

select * from assessment_bookings
