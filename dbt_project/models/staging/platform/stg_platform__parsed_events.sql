-- Values as they are, not checked and joined to nothing.

with

events as (

    select * from {{ ref('stg_platform__identified_events') }}

),

{{ parse_events('events') }}

select * from parsed_events
