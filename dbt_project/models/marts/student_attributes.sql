{{ config(contract={'enforced': true}) }}

with

attributes as (

    select
        student_id,
        course_run_id,
        attribute,
        value
    from {{ canonical('student_attributes') }}

)

select * from attributes
