-- Each event with what is wrong with it by itself; model
-- stg_platform__activity_events adds what only shows beside the others.

with

events as (

    select * from {{ ref('stg_platform__parsed_events') }}

),

{{ check_events('events') }}

select * from checked_events
