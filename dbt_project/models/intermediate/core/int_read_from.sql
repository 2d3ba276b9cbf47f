{{ config(post_hook="{{ void_record('read_from', 'activity_checksum') }}") }}

-- From which day on is activity read again in this run? From the look-back on where
-- what was known before it is as the last build found it.

{% set record = record_to_add_to() %}
{% set day = look_back('data_until') %}
{% set checksum = activity_checksum('(select ' ~ day ~ ' from ' ~ record ~ ')') %}

with

read_again as (

    {% if record %}
    select
        coalesce(
            case when activity_checksum = {{ checksum }} then {{ day }} end,
            cast('1900-01-01' as date)
        ) as read_from
    from {{ record }}
    {% else %}
    select cast('1900-01-01' as date) as read_from
    {% endif %}

)

select * from read_again
