{{
    config(
        materialized='view',
        schema='ml',
        contract={'enforced': true},
    )
}}

-- The champion's scores at the newest day it has scored.

with

scores as (

    select * from {{ source('ml', 'student_scores') }}

),

champion as (

    select run_id
    from {{ source('ml', 'model_runs') }}
    where
        status = 'champion'
        and source_system = '{{ setting('source_system') }}'
        and target_definition = '{{ setting('target_definition') }}'

),

of_champion as (

    select scores.*
    from scores
    inner join champion
        on scores.run_id = champion.run_id

),

newest as (

    select max(as_of_date) as as_of_date
    from of_champion

),

current_scores as (

    select of_champion.*
    from of_champion
    inner join newest
        on of_champion.as_of_date = newest.as_of_date

)

select * from current_scores
