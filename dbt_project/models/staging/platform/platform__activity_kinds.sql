{{ config(materialized='table') }}

-- Events that are rejected are in it too: it need only have the kinds of those that
-- are not, and looking at one column is soon done.

with

named as (

    select event_type as activity_kind
    from {{ ref('stg_platform__parsed_events') }}
    where event_type is not null

    union all

    select 'progress' as activity_kind

    union all

    select 'quiz_answer' as activity_kind

),

counted as (

    select
        activity_kind,
        count(*) as uses
    from named
    group by activity_kind

),

activity_kinds as (

    {{ flag_values('counted', 'activity_kind') }}

)

select * from activity_kinds
