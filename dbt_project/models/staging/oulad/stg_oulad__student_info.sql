{{ config(materialized='table') }}

with

source as (

    select * from {{ raw_table('oulad', 'studentInfo') }} as file_rows

),

runs as (

    select * from {{ ref('stg_oulad__courses') }}
    where rejected_because is null

),

parsed as (

    select
        {{ blank_to_null('code_module') }} as code_module,
        {{ blank_to_null('code_presentation') }} as code_presentation,
        {{ blank_to_null('id_student') }} as id_student,
        {{ blank_to_null('gender') }} as gender,
        {{ blank_to_null('region') }} as region,
        {{ blank_to_null('highest_education') }} as highest_education,
        {{ blank_to_null('imd_band') }} as imd_band,
        {{ blank_to_null('age_band') }} as age_band,
        {{ blank_to_null('disability') }} as disability,
        {{ blank_to_null('studied_credits') }} as studied_credits,
        num_of_prev_attempts as raw_num_of_prev_attempts,
        {{ parse_integer('num_of_prev_attempts') }} as num_of_prev_attempts
    from source

),

matched as (

    select
        parsed.*,
        runs.course_run_id
    from parsed
    left join runs
        on
            parsed.code_module = runs.code_module
            and parsed.code_presentation = runs.code_presentation

),

checked as (

    select
        *,
        case
            {{ reject_missing(['id_student']) }}
            when course_run_id is null then 'no such presentation in courses'
            {{ reject_bad_number('num_of_prev_attempts', 0, 100) }}
        end as rejected_because
    from matched

),

numbered as (

    select
        *,
        row_number() over (
            partition by id_student, course_run_id, rejected_because
            order by
                num_of_prev_attempts nulls last,
                studied_credits nulls last,
                gender nulls last,
                region nulls last,
                highest_education nulls last,
                imd_band nulls last,
                age_band nulls last,
                disability nulls last
        ) as copy_number
    from checked

),

student_info as (

    select
        code_module,
        code_presentation,
        id_student,
        course_run_id,
        num_of_prev_attempts,
        gender,
        region,
        highest_education,
        imd_band,
        age_band,
        disability,
        studied_credits,
        case
            when rejected_because is null and copy_number > 1
                then 'id_student is repeated in the presentation'
            else rejected_because
        end as rejected_because
    from numbered

)

select * from student_info
