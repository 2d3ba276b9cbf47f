{% set threshold = setting('prediction_threshold') %}
{% set sure_from = setting('confidence_threshold') or 0 %}
{% set smallest = var('fairness_min_group') %}
{# What each rate counts, and among how many. #}
{% set rates = {
    'flag_rate': ('found + in_vain', 'points'),
    'false_positive_rate': ('in_vain', 'in_vain + left_alone'),
    'false_negative_rate': ('missed', 'found + missed'),
    'precision': ('found', 'found + in_vain'),
    'calibration_gap': ('gap', 'points'),
} %}

-- How the model treats groups of students on the test period: one row per run, lead,
-- group and rate, with an interval. Pairs of attributes at the headline lead only.

with

runs as (

    select * from {{ ref('int_monitored_runs') }}

),

attributes as (

    select * from {{ ref('student_attributes') }}

),

-- A message in between changes what happens: such points say nothing of the model.
usual as (

    select
        predictions.run_id,
        predictions.lead_days,
        predictions.student_id,
        predictions.course_run_id,
        predictions.at_risk,
        predictions.risk_score,
        -- Unknown (a run from before it was kept) is sure enough.
        case
            when predictions.confidence < {{ sure_from }} then 0 else 1
        end as is_sure
    from {{ source('ml', 'evaluation_predictions') }} as predictions
    inner join runs
        on predictions.run_id = runs.run_id
    where not coalesce(predictions.contacted_before_due, false)

),

predictions as (

    select
        *,
        rank() over (
            partition by run_id, lead_days, is_sure
            order by risk_score desc
        ) as risk_rank,
        count(*) over (partition by run_id, lead_days) as points
    from usual

),

-- What the product would do: everybody from the threshold on, else the riskiest
-- share, with those who tie with its last; nobody of whom the model is not sure
-- (CONFIDENCE_THRESHOLD).
flagged as (

    select
        *,
        {% if threshold is not none %}
        case
            when is_sure = 1 and risk_score >= {{ threshold }} then 1 else 0
        end as is_flagged,
        {% else %}
        case
            when is_sure = 1 and risk_rank <= points * {{ var('fairness_flag_share') }}
                then 1
            else 0
        end as is_flagged,
        {% endif %}
        {{ as_decimal('risk_score - at_risk', 18, 6) }} as gap
    from predictions

),

sittings as (

    select distinct
        student_id,
        course_run_id
    from flagged

),

names as (

    select distinct attribute
    from attributes

),

of_students as (

    select
        student_id,
        attribute,
        value
    from attributes
    where course_run_id is null

),

-- The value in the run of the course, else the student's own.
singles as (

    select
        sittings.student_id,
        sittings.course_run_id,
        names.attribute,
        coalesce(of_run.value, of_student.value, '(unknown)') as value
    from sittings
    cross join names
    left join attributes as of_run
        on
            sittings.student_id = of_run.student_id
            and sittings.course_run_id = of_run.course_run_id
            and names.attribute = of_run.attribute
    left join of_students as of_student
        on
            sittings.student_id = of_student.student_id
            and names.attribute = of_student.attribute

),

memberships as (

    select
        student_id,
        course_run_id,
        attribute,
        value,
        0 as is_pair
    from singles

    union all

    select
        one.student_id,
        one.course_run_id,
        {{ dbt.concat(['one.attribute', "' x '", 'other.attribute']) }} as attribute,
        {{ dbt.concat(['one.value', "' x '", 'other.value']) }} as value,
        1 as is_pair
    from singles as one
    inner join singles as other
        on
            one.student_id = other.student_id
            and one.course_run_id = other.course_run_id
            and one.attribute < other.attribute

),

by_student as (

    select
        flagged.run_id,
        flagged.lead_days,
        memberships.attribute,
        memberships.value,
        memberships.is_pair,
        flagged.student_id,
        count(*) as points,
        {{ count_where('is_flagged = 1 and at_risk = 1') }} as found,
        {{ count_where('is_flagged = 1 and at_risk = 0') }} as in_vain,
        {{ count_where('is_flagged = 0 and at_risk = 1') }} as missed,
        {{ count_where('is_flagged = 0 and at_risk = 0') }} as left_alone,
        cast(sum(flagged.gap) as decimal(18, 6)) as gap
    from flagged
    inner join memberships
        on
            flagged.student_id = memberships.student_id
            and flagged.course_run_id = memberships.course_run_id
    where
        memberships.is_pair = 0
        or flagged.lead_days = {{ headline_lead() }}
    group by
        flagged.run_id,
        flagged.lead_days,
        memberships.attribute,
        memberships.value,
        memberships.is_pair,
        flagged.student_id

),

counted as (

    {% for rate, (hits, cases) in rates.items() %}
    select
        run_id,
        lead_days,
        attribute,
        value,
        is_pair,
        '{{ rate }}' as rate,
        cast({{ hits }} as decimal(18, 6)) as hits,
        cast({{ cases }} as {{ dbt.type_bigint() }}) as cases
    from by_student
    {% if not loop.last %}union all{% endif %}
    {% endfor %}

),

totals as (

    select
        run_id,
        lead_days,
        attribute,
        value,
        is_pair,
        rate,
        sum(hits) as hits,
        cast(sum(cases) as {{ dbt.type_bigint() }}) as cases,
        sum(hits * hits) as hits_hits,
        sum(hits * cases) as hits_cases,
        sum(cases * cases) as cases_cases,
        {{ count_where('cases > 0') }} as clusters,
        count(*) as students
    from counted
    group by
        run_id,
        lead_days,
        attribute,
        value,
        is_pair,
        rate

),

estimated as (

    select
        *,
        case
            when students >= {{ smallest }} then {{ ratio('hits', 'cases') }}
        end as estimate,
        {{ clustered_variance(
            'hits', 'cases', 'hits_hits', 'hits_cases', 'cases_cases', 'clusters'
        ) }} as variance
    from totals

),

with_effective_cases as (

    select
        *,
        {{ effective_cases('estimate', 'variance', 'cases', 'clusters') }}
            as effective_cases
    from estimated

),

fairness_rates as (

    select
        run_id,
        lead_days,
        attribute,
        value,
        is_pair,
        rate,
        cases,
        students,
        estimate,
        -- A mean difference is no share: the plain interval, within its limits.
        case
            when estimate is null then null
            when rate = 'calibration_gap'
                then greatest(-1, estimate - {{ z_95() }} * sqrt(abs(variance)))
            else {{ wilson_end('estimate', 'effective_cases', '-') }}
        end as low,
        case
            when estimate is null then null
            when rate = 'calibration_gap'
                then least(1, estimate + {{ z_95() }} * sqrt(abs(variance)))
            else {{ wilson_end('estimate', 'effective_cases', '+') }}
        end as high
    from with_effective_cases

)

select * from fairness_rates
