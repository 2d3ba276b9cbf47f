{%- set attributes = [
    'gender',
    'region',
    'highest_education',
    'imd_band',
    'age_band',
    'disability',
    'studied_credits',
] %}

with

student_info as (

    select * from {{ ref('stg_oulad__student_info') }}
    where rejected_because is null

),

student_attributes as (

    {%- for attribute in attributes %}
    select
        id_student as student_id,
        course_run_id,
        '{{ attribute }}' as attribute,
        {{ attribute }} as value
    from student_info
    {%- if not loop.last %}

    union all
    {% endif %}
    {%- endfor %}

)

select * from student_attributes
