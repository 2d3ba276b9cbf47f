{{ config(enabled=setting('include_attributes')) }}

-- Attributes as features, only where somebody has asked for them.
-- depends_on: {{ canonical('student_attributes') }}

with

enrollments as (

    select * from {{ ref('int_enrollments') }}

),

attributes as (

    select * from {{ canonical('student_attributes') }}

),

features as (

    select
        enrollments.student_id,
        enrollments.course_run_id
        {% for name in attribute_names() %},
        max(case
            when attributes.attribute = '{{ name }}' then attributes.value
        end) as attribute_{{ name }}
        {% endfor %}
    from enrollments
    left join attributes
        on
            enrollments.student_id = attributes.student_id
            and enrollments.course_run_id
            = coalesce(attributes.course_run_id, enrollments.course_run_id)
    group by
        enrollments.student_id,
        enrollments.course_run_id

)

select * from features
