{%- set families = [
    'window', 'velocity', 'to_date', 'habits', 'record', 'relative',
] %}
{#- Nobody is compared by habits, so only those who are asked have some. -#}
{%- set asked = '(select * from ' ~ ref('int_observations') ~ ' where is_asked)' %}

-- What is this? Observations that a family of features lacks, or has twice.
--
-- When does it matter? Always: the inner joins of student_features_14d would drop or
-- double the prediction points of such a student.
--
-- How do I fix it? See the last step of int_features_<family>: it starts from
-- int_observations and joins what may be missing from the left.

with

{% for family in families %}
{{ family }}_differences as (

    {{ test_same_rows_as(
        ref('int_features_' ~ family),
        asked if family == 'habits' else ref('int_observations'),
        ['student_id', 'course_run_id', 'as_of_date'],
    ) }}

),

{% endfor %}

differences as (

    {% for family in families %}
    select
        '{{ family }}' as family,
        student_id,
        course_run_id,
        as_of_date,
        rows_here,
        rows_there
    from {{ family }}_differences
    {% if not loop.last %}union all{% endif %}
    {% endfor %}

)

select * from differences
