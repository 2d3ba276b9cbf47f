with

purchases as (

    select
        id_student as student_id,
        code_module as course_id,
        registered_at as purchased_at,
        id_student || '_' || course_run_id as purchase_id
    from {{ ref('stg_oulad__student_registration') }}
    where rejected_because is null

)

select * from purchases
