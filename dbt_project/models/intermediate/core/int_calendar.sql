-- The one row that says how far the data reaches and which day is scored.

with

newest_facts as (

    select max(known_date) as newest_date
    from {{ ref('int_daily_activity') }}

    union all

    select cast(max(submitted_at) as date) as newest_date
    from {{ canonical('results') }}

    union all

    select cast(max(purchased_at) as date) as newest_date
    from {{ canonical('purchases') }}

),

calendar as (

    select
        {{ add_days('max(newest_date)', 1) }} as data_until,
        {% if setting('as_of_date') %}
        cast('{{ setting('as_of_date') }}' as date) as as_of_date
        {% else %}
        {{ add_days('max(newest_date)', 1) }} as as_of_date
        {% endif %}
    from newest_facts

)

select * from calendar
