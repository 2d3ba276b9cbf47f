{%- set attributes = student_attributes() -%}

with

students as (

    select * from {{ ref('stg_platform__students') }}
    where rejected_because is null

),

student_attributes as (

    {%- for attribute in attributes %}
    select
        student_id,
        cast(null as {{ dbt.type_string() }}) as course_run_id,
        '{{ attribute }}' as attribute,
        {{ adapter.quote(attribute) }} as value
    from students
    where {{ adapter.quote(attribute) }} is not null

    union all
    {% endfor %}
    -- No row: gives the model its columns where there is no attribute.
    select
        student_id,
        cast(null as {{ dbt.type_string() }}) as course_run_id,
        cast(null as {{ dbt.type_string() }}) as attribute,
        cast(null as {{ dbt.type_string() }}) as value
    from students
    where 1 = 0

)

select * from student_attributes
