{{ config(materialized='view') }}

-- The champion's scores at the day that the tables stand at: flags, reasons and
-- features then speak of the same day. current_scores may be ahead of it.

with

scores as (

    select * from {{ source('ml', 'student_scores') }}

),

runs as (

    select * from {{ source('ml', 'model_runs') }}

),

calendar as (

    select * from {{ ref('int_calendar') }}

),

scores_of_day as (

    select scores.*
    from scores
    inner join runs
        on scores.run_id = runs.run_id
    inner join calendar
        on scores.as_of_date = calendar.as_of_date
    where
        runs.status = 'champion'
        and runs.source_system = '{{ setting('source_system') }}'
        and runs.target_definition = '{{ setting('target_definition') }}'

)

select * from scores_of_day
