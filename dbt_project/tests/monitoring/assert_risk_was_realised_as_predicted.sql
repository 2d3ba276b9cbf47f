{# A warning, because the past cannot be mended by a stop: it asks for a look. #}
{{ config(severity='warn') }}

-- What is this? Risk bands of the newest week with answers in which, of the students the
-- champion scored and nobody wrote to, more failed than predicted, beyond chance.
--
-- When does it matter? Its probabilities are too low, and students in need stay below
-- the threshold.
--
-- How do I fix it? See "Drift" in docs/runbook.md.

with

champion as (

    select run_id
    from {{ ref('int_monitored_runs') }}
    where status = 'champion'

),

answered as (

    select
        realised.*,
        max(realised.as_of_week) over () as newest_week
    from {{ ref('realised_risk') }} as realised
    inner join champion
        on realised.run_id = champion.run_id
    where
        realised.answered > 0
        and not realised.contacted_before_due

),

worse as (

    select * from answered
    where
        as_of_week = newest_week
        and note = 'more failed than predicted'

)

select * from worse
