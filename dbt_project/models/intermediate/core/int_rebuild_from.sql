{{ config(post_hook="{{ void_record('rebuild_from', 'facts_checksum') }}") }}

-- From which day on are features and activity computed again in this run? From the
-- look-back on where what was known before it is as the last build found it.

{% set last_build = known_again_from() %}

with

rebuild as (

    {% if last_build %}
    select
        case
            when
                facts_checksum
                = {{ known_facts_checksum("cast('" ~ last_build ~ "' as date)") }}
                then cast('{{ last_build }}' as date)
            else cast('1900-01-01' as date)
        end as rebuild_from
    from {{ settings_record() }}
    {% else %}
    -- depends_on: {{ known_facts_checksum('1') }}
    select cast('1900-01-01' as date) as rebuild_from
    {% endif %}

)

select * from rebuild
