{#
  Spells that touch or overlap are one. Renders a subselect of `relation`
  (columns started_at, ended_at, subscription_id and those of `keys`) with one
  column more: run_started_at, the first instant of the unbroken run a spell
  belongs to. Spells are half open: one that begins as another ends touches it.
#}
{% macro with_run_start(relation, keys) %}
    (
        select
            covered.*,
            -- Sorted by start: the latest break so far is where this run began.
            max(case
                when covered.covered_until is null then covered.started_at
                when covered.started_at > covered.covered_until
                    then covered.started_at
            end) over (
                partition by {{ keys | join(', ') }}
                order by covered.started_at, covered.subscription_id
                rows between unbounded preceding and current row
            ) as run_started_at
        from (
            select
                spells.*,
                max(spells.ended_at) over (
                    partition by {{ keys | join(', ') }}
                    order by spells.started_at, spells.subscription_id
                    rows between unbounded preceding and 1 preceding
                ) as covered_until
            from {{ relation }} as spells
        ) as covered
    )
{% endmacro %}


{# Stands for "never" where ends are compared. #}
{% macro far_future() -%}
    cast('9999-01-01 00:00:00' as {{ dbt.type_timestamp() }})
{%- endmacro %}


{# The same as a day. #}
{% macro far_date() -%}
    cast('9999-01-01' as date)
{%- endmacro %}
