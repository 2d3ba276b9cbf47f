{{ config(contract={'enforced': true}) }}

-- One row per month of due days: how many questions were asked, and how many of
-- their answers have arrived.

with

targets as (

    select * from {{ ref('student_targets') }}

),

-- A sitting without a due time is due when it was asked about.
questions as (

    select
        *,
        cast(
            {{ dbt.date_trunc('month', 'coalesce(due_at, as_of_date)') }} as date
        ) as due_month,
        {{ dbt.datediff('due_at', 'label_known_at', 'day') }}
            as days_to_label
    from targets
    where is_training_point

),

label_arrival as (

    select
        due_month,
        count(*) as questions,
        count(distinct student_id) as students,
        {{ count_where("label_status = 'matured'") }} as matured,
        {{ count_where("label_status = 'pending'") }} as pending,
        {{ count_where("label_status = 'postponed'") }} as postponed,
        {{ count_where("label_status = 'unobserved'") }} as unobserved,
        {{ ratio(
            "sum(case when label_status = 'matured' then days_to_label end)",
            "sum(case when label_status = 'matured' and days_to_label is not null"
            ~ " then 1 else 0 end)"
        ) }} as mean_days_to_label,
        min(case when label_status = 'pending' then label_known_at end)
            as next_label_at
    from questions
    group by due_month

)

select * from label_arrival
