{# A warning, because the data are as they are: it asks for a look, not for a stop. #}
{{ config(severity='warn') }}

-- What is this? Features among the champion's twenty most important whose values on the
-- day that is scored lie far from those it was trained on (level alert).
--
-- When does it matter? A model is no better than its likeness to its training. A table
-- that stopped arriving looks the same: see missing_now.
--
-- How do I fix it? See "Drift" in docs/runbook.md.

with

champion as (

    select run_id
    from {{ ref('int_monitored_runs') }}
    where status = 'champion'

),

drifted as (

    select drift.*
    from {{ ref('feature_drift') }} as drift
    inner join champion
        on drift.run_id = champion.run_id
    where
        drift.level = 'alert'
        and drift.importance_rank <= 20

)

select * from drifted
