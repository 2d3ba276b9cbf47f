{{ config(severity='error') }}

-- What is this? One row per model that has rows of students who asked to be
-- forgotten; no id is shown.
--
-- When does it matter? Always: it was promised to them.
--
-- How do I fix it? A staging model reads raw data other than by raw_table(), or its
-- column of students' ids is missing from the macro student_columns.

{%- set models = {
    'students': canonical('students'),
    'student_contacts': canonical('student_contacts'),
    'enrollments': canonical('enrollments'),
    'purchases': canonical('purchases'),
    'bookings': canonical('bookings'),
    'results': canonical('results'),
    'int_daily_activity': ref('int_daily_activity'),
    'student_targets': ref('student_targets'),
} %}

with

ids as (

    {%- for name, relation in models.items() %}
    select distinct
        '{{ name }}' as model,
        student_id
    from {{ relation }}
    {%- if not loop.last %}

    union all
    {% endif %}
    {%- endfor %}

),

forgotten as (

    select
        model,
        count(*) as students
    from ids
    where {{ is_forgotten('student_id') }}
    group by model

)

select * from forgotten
