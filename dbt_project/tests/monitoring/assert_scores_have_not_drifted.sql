{# A warning, because the data are as they are: it asks for a look, not for a stop. #}
{{ config(severity='warn') }}

-- What is this? The champion's newest scoring day, if its scores lie far from those of
-- its test period (level alert).
--
-- When does it matter? Bands and thresholds were fitted to the old scores: more or fewer
-- students than meant may be flagged.
--
-- How do I fix it? See "Drift" in docs/runbook.md.

with

champion as (

    select run_id
    from {{ ref('int_monitored_runs') }}
    where status = 'champion'

),

of_champion as (

    select
        drift.*,
        row_number() over (order by drift.as_of_date desc) as recency
    from {{ ref('score_drift') }} as drift
    inner join champion
        on drift.run_id = champion.run_id

),

drifted as (

    select * from of_champion
    where
        recency = 1
        and level = 'alert'

)

select * from drifted
