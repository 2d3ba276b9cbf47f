-- The next day on which the peers are observed, after each day with activity and after
-- the days on which its activity leaves the window and the halves of it.

{% set leaving = leaves_window_after() %}

with

observations as (

    select * from {{ ref('int_observations') }}

),

offsets as (

    {{ rows_of([0] + leaving.values() | list, 'offset_days') }}

),

days as (

    select
        peer_group_id,
        activity_date as day
    from {{ ref('int_observed_activity') }}

    union

    select
        peer_group_id,
        known_date as day
    from {{ ref('int_observed_activity') }}

),

moved_days as (

    select
        days.peer_group_id,
        days.day,
        offsets.offset_days,
        {{ add_days('days.day', 'offsets.offset_days') }} as moved_to,
        cast(null as date) as as_of_date
    from days
    cross join offsets

    union all

    select distinct
        observations.peer_group_id,
        cast(null as date) as day,
        offsets.offset_days,
        observations.as_of_date as moved_to,
        observations.as_of_date
    from observations
    cross join offsets

),

-- The first day of observation after a day, so many days on.
next_observed as (

    select
        peer_group_id,
        day,
        offset_days,
        min(as_of_date) over (
            partition by peer_group_id, offset_days
            order by moved_to, case when day is null then 0 else 1 end, day
            rows between 1 following and unbounded following
        ) as next_date
    from moved_days

),

next_dates as (

    select
        peer_group_id,
        day,
        {% for name, days in leaving.items() %}
        max(case when offset_days = {{ days }} then next_date end)
            as {{ name }}_over_on,
        {% endfor %}
        max(case when offset_days = 0 then next_date end) as seen_on
    from next_observed
    where day is not null
    group by
        peer_group_id,
        day

)

select * from next_dates
