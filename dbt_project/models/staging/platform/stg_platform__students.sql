{{ config(materialized='table') }}

{%- set attributes = student_attributes() %}

with

source as (

    select * from {{ raw_table('platform', 'students', attributes) }} as raw

),

parsed as (

    select
        {{ blank_to_null('student_id') }} as student_id,
        {%- for attribute in attributes %}
        {{ blank_to_null(adapter.quote(attribute)) }}
            as {{ adapter.quote(attribute) }},
        {%- endfor %}
        {{ parse_timestamp('registered_at') }} as registered_at
    from source

),

checked as (

    select
        student_id,
        {%- for attribute in attributes %}
        {{ adapter.quote(attribute) }},
        {%- endfor %}
        -- A description, not a fact: what cannot be true is unknown.
        case
            when registered_at > {{ latest_plausible_time() }} then null
            when registered_at < {{ earliest_plausible_time() }} then null
            else registered_at
        end as registered_at,
        case
            {{ reject_missing(['student_id']) }}
        end as rejected_because
    from parsed

),

-- The earliest row of an id stays: a row that is added later changes nothing.
numbered as (

    select
        *,
        row_number() over (
            partition by student_id, rejected_because
            order by
                registered_at nulls last,
                {% for attribute in attributes %}
                {{ adapter.quote(attribute) }} nulls last,
                {% endfor %}
                student_id
        ) as copy_number
    from checked

),

students as (

    select
        student_id,
        registered_at,
        {%- for attribute in attributes %}
        {{ adapter.quote(attribute) }},
        {%- endfor %}
        case
            when rejected_because is null and copy_number > 1
                then 'student_id is repeated'
            else rejected_because
        end as rejected_because
    from numbered

)

select * from students
