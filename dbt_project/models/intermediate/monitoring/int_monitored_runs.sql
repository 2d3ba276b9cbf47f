-- The runs that are watched: the champion, the newest ones of this source and target,
-- and one that is asked about before it is promoted. From each point a model may only
-- be judged on what came after its training.

{% set asked = var('also_monitored', env_var('ALSO_MONITORED', '')) %}

with

runs as (

    select
        run_id,
        status,
        created_at,
        -- A refit was trained on every label known before the day it was made for.
        coalesce(
            {{ json_day('settings', 'refit_before') }},
            test_from
        ) as trained_before
    from {{ source('ml', 'model_runs') }}
    where
        source_system = '{{ setting('source_system') }}'
        and target_definition = '{{ setting('target_definition') }}'

),

ranked as (

    select
        *,
        row_number() over (order by created_at desc, run_id) as recency
    from runs

),

monitored as (

    select
        run_id,
        status,
        trained_before,
        trained_before as judged_from
    from ranked
    where
        status = 'champion'
        or recency <= {{ var('monitored_runs') }}
        or run_id = {{ sql_text(asked) }}

)

select * from monitored
