-- By far the largest table: everything else reads it from here.
{{ config(materialized='table') }}

with

source as (

    select * from {{ raw_table('oulad', 'studentVle') }} as file_rows

),

registrations as (

    select * from {{ ref('stg_oulad__student_registration') }}
    where rejected_because is null

),

sites as (

    select * from {{ ref('stg_oulad__vle') }}
    where rejected_because is null

),

-- Without the optional table vle no page is known, and none is unknown.
known_sites as (

    select count(*) as number_of_sites from sites

),

parsed as (

    select
        {{ blank_to_null('code_module') }} as code_module,
        {{ blank_to_null('code_presentation') }} as code_presentation,
        {{ blank_to_null('id_student') }} as id_student,
        {{ blank_to_null('id_site') }} as id_site,
        date as raw_click_day,
        {{ parse_integer('date') }} as click_day,
        sum_click as raw_sum_click,
        {{ parse_integer('sum_click') }} as sum_click
    from source

),

matched as (

    select
        parsed.*,
        registrations.course_run_id,
        registrations.run_started_at,
        sites.id_site as known_site,
        sites.activity_type,
        known_sites.number_of_sites
    from parsed
    left join registrations
        on
            parsed.id_student = registrations.id_student
            and parsed.code_module = registrations.code_module
            and parsed.code_presentation = registrations.code_presentation
    left join sites
        on
            parsed.id_site = sites.id_site
            and registrations.course_run_id = sites.course_run_id
    cross join known_sites

),

checked as (

    select
        *,
        case
            {{ reject_missing(['id_student', 'id_site']) }}
            when course_run_id is null
                then 'no registration of the student in the presentation'
            when known_site is null and number_of_sites > 0
                then 'no such page in vle'
            {{ reject_bad_oulad_day('click_day') }}
            {{ reject_missing(['click_day']) }}
            {{ reject_bad_number('sum_click', 0, 1000000) }}
            {{ reject_missing(['sum_click']) }}
        end as rejected_because
    from matched

),

-- Rows that agree in everything are alike: whichever comes first will do.
numbered as (

    select
        *,
        row_number() over (
            partition by id_student, course_run_id, id_site, rejected_because
            order by click_day, sum_click
        ) as click_number
    from checked

),

student_vle as (

    select
        code_module,
        code_presentation,
        id_student,
        id_site,
        course_run_id,
        activity_type,
        case
            when rejected_because is null
                then {{ oulad_day_start('click_day') }}
        end as clicked_at,
        sum_click,
        case when known_site is null then 0 else 1 end as is_known_site,
        case
            when rejected_because is null and click_number = 1 then 1
            else 0
        end as is_first_click,
        rejected_because
    from numbered

)

select * from student_vle
