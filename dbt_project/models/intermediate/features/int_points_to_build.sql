-- The prediction points whose features this run computes: all in a first one, later
-- those that have none yet, and those that stand after the day from which on things
-- may have changed. Of a point that stands on that day nothing has.

{% set held = adapter.get_relation(
    database=target.database, schema=target.schema, identifier='student_features_14d'
) if execute and builds_incrementally() and not flags.FULL_REFRESH else none %}

with

points as (

    select * from {{ ref('int_prediction_points') }}

),

{% if held is not none %}

rebuild as (

    select * from {{ ref('int_rebuild_from') }}

),

{% else %}

-- depends_on: {{ ref('int_rebuild_from') }}

{% endif %}

points_to_build as (

    select points.*
    from points
    {% if held is not none %}
    cross join rebuild
    left join {{ held }} as held
        on
            points.student_id = held.student_id
            and points.course_id = held.course_id
            and points.assessment_id = held.assessment_id
            and points.as_of_date = held.as_of_date
    where
        points.as_of_date > rebuild.rebuild_from
        or held.student_id is null
    {% endif %}

)

select * from points_to_build
