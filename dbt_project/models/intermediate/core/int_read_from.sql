{{ config(post_hook="{{ void_record('read_from', 'activity_checksum') }}") }}

-- From which day on is activity read again in this run? From the look-back on where
-- what was known before it is as the last build found it. Where the tables hold the
-- files of that one, they say it, and only new files are looked into.

{% set record = record_to_add_to() %}
{% set day = look_back('data_until') %}
{% set recorded_day = '(select ' ~ day ~ ' from ' ~ record ~ ')' %}
{% set is_held = holds_event_files() %}
{% set checksum = activity_checksum(recorded_day, 'before' if is_held else 'no') %}

with

read_again as (

    {% if record %}
    select
        coalesce(
            case
                when
                    activity_checksum = {{ checksum }}
                    and {{ no_new_file_has_older(recorded_day) }}
                    then {{ day }}
            end,
            cast('1900-01-01' as date)
        ) as read_from
    from {{ record }}
    {% else %}
    select cast('1900-01-01' as date) as read_from
    {% endif %}

)

select * from read_again
