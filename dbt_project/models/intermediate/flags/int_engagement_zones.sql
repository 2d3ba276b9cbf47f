-- Dormant, warning or safe, from the share of the course done by as_of_date.

with

features as (

    select * from {{ ref('student_features_14d') }}

),

zones as (

    select
        student_id,
        course_id,
        assessment_id,
        as_of_date,
        case
            when to_date_active_days is null then null
            when to_date_active_days = 0 then 'dormant'
            when to_date_share_of_course is null then null
            when to_date_share_of_course < {{ var('warning_zone_below') }}
                then 'warning'
            else 'safe'
        end as engagement_zone
    from features

)

select * from zones
