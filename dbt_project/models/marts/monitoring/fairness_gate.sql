{{ config(contract={'enforced': true}) }}
{% set allowed = setting('fairness_max_gap') %}
{% set attributes = var('fairness_gate_attributes') %}
{% set gated_attributes = "attribute in ('" ~ attributes | join("', '") ~ "')"
    if attributes else 'is_pair = 0' %}
{% set gated_rates = "rate in ('" ~ var('fairness_gate_rates') | join("', '") ~ "')" %}

-- One row per run, attribute and rate: the widest gap between two groups at the
-- headline lead, and whether it is allowed.

with

rates as (

    select
        *,
        case
            when {{ gated_rates }} and {{ gated_attributes }} then 1 else 0
        end as is_gated
    from {{ ref('int_fairness_rates') }}
    where lead_days = {{ headline_lead() }}

),

measured as (

    select
        *,
        count(*) over (partition by run_id, attribute, rate) as measured_groups
    from rates
    where estimate is not null

),

-- Many pairs of groups find a wide gap somewhere by chance: 0.05 is shared out among
-- them (Bonferroni).
pairs as (

    select
        most.run_id,
        most.attribute,
        most.rate,
        most.value as highest_group,
        most.estimate as highest,
        most.low as highest_low,
        most.high as highest_high,
        least_.value as lowest_group,
        least_.estimate as lowest,
        least_.low as lowest_low,
        least_.high as lowest_high,
        most.estimate - least_.estimate as gap,
        {{ normal_point(
            '0.05e0 / (' ~ as_number('most.measured_groups')
            ~ ' * (most.measured_groups - 1))'
        ) }} as z
    from measured as most
    inner join measured as least_
        on
            most.run_id = least_.run_id
            and most.attribute = least_.attribute
            and most.rate = least_.rate
    where
        most.estimate > least_.estimate
        or (most.estimate = least_.estimate and most.value > least_.value)

),

-- The interval of a difference from those of its two parts (Newcombe, Statistics in
-- Medicine 17, 1998, method 10; Zou and Donner, the same 27, 2008), widened to z.
with_interval as (

    select
        *,
        greatest(-1, gap - z / {{ z_95() }} * sqrt(
            (highest - highest_low) * (highest - highest_low)
            + (lowest_high - lowest) * (lowest_high - lowest)
        )) as gap_low,
        gap + z / {{ z_95() }} * sqrt(
            (highest_high - highest) * (highest_high - highest)
            + (lowest - lowest_low) * (lowest - lowest_low)
        ) as gap_high
    from pairs

),

-- The widest gap that is more than chance, else the widest one.
widest as (

    select
        *,
        row_number() over (
            partition by run_id, attribute, rate
            order by
                case when gap_low > 0 then 0 else 1 end,
                gap desc,
                highest_group,
                lowest_group
        ) as gap_rank
    from with_interval

),

-- The widest gap of those that may be chance.
unsure as (

    select
        *,
        row_number() over (
            partition by run_id, attribute, rate
            order by gap desc, highest_group, lowest_group
        ) as gap_rank
    from with_interval
    where gap_low <= 0

),

asked as (

    select
        run_id,
        attribute,
        rate,
        max(is_gated) as is_gated,
        {{ count_where('estimate is not null') }} as measured_groups,
        {{ count_where('estimate is null') }} as unmeasured_groups
    from rates
    group by
        run_id,
        attribute,
        rate

),

decided as (

    select
        asked.run_id,
        asked.attribute,
        asked.rate,
        asked.measured_groups,
        widest.highest_group,
        widest.highest,
        widest.lowest_group,
        widest.lowest,
        widest.gap,
        widest.gap_low,
        widest.gap_high,
        asked.unmeasured_groups,
        unsure.highest_group as unsure_highest_group,
        unsure.lowest_group as unsure_lowest_group,
        unsure.gap as unsure_gap,
        asked.is_gated = 1 as is_gated,
        {% if allowed is none %}
        cast(null as {{ type_double() }}) as allowed_gap,
        cast(null as {{ dbt.type_boolean() }}) as passes,
        {% else %}
        cast({{ allowed }} as {{ type_double() }}) as allowed_gap,
        case
            when asked.is_gated = 1 and widest.gap is not null
                then not (widest.gap > {{ allowed }} and widest.gap_low > 0)
        end as passes,
        {% endif %}
        {{ dbt.replace('asked.rate', "'_'", "' '") }} as rate_in_words
    from asked
    left join widest
        on
            asked.run_id = widest.run_id
            and asked.attribute = widest.attribute
            and asked.rate = widest.rate
            and widest.gap_rank = 1
    left join unsure
        on
            asked.run_id = unsure.run_id
            and asked.attribute = unsure.attribute
            and asked.rate = unsure.rate
            and unsure.gap_rank = 1

),

-- What the gate lets pass without being sure of it.
doubted as (

    select
        *,
        case
            when unsure_gap > allowed_gap
                then {{ dbt.concat([
                    "'; the gap of '", share_as_text('unsure_gap'), "' between group '",
                    'unsure_highest_group', "' and group '", 'unsure_lowest_group',
                    "' is wider than allowed but may be chance'",
                ]) }}
            else ''
        end as unsure_words,
        case
            when unmeasured_groups > 0
                then {{ dbt.concat([
                    "'; groups not measured (fewer than "
                    ~ var('fairness_min_group') ~ " students, or no such case): '",
                    'cast(unmeasured_groups as ' ~ dbt.type_string() ~ ')',
                ]) }}
            when measured_groups < 2 then '; there is one group, nothing to compare'
            else ''
        end as unmeasured_words
    from decided

),

fairness_gate as (

    select
        run_id,
        attribute,
        rate,
        measured_groups,
        highest_group,
        highest,
        lowest_group,
        lowest,
        gap,
        gap_low,
        gap_high,
        is_gated,
        allowed_gap,
        passes,
        case
            when gap is null
                then {{ dbt.concat([
                    "'By '", 'attribute', "', '", 'rate_in_words',
                    "': fewer than two groups are measured, nothing to compare.'",
                ]) }}
            else {{ dbt.concat([
                "'By '", 'attribute', "', '", 'rate_in_words', "' is '",
                share_as_text('highest'), "' in group '", 'highest_group',
                "' and '", share_as_text('lowest'), "' in group '", 'lowest_group',
                "': a gap of '", share_as_text('gap'), "' ('",
                share_as_text('gap_low'), "' to '", share_as_text('gap_high'), "'), '",
                "case when gap_low > 0 then 'more than chance' else 'maybe chance' end",
                "case when passes then '; allowed is '"
                ~ " when not passes then '; allowed is no more than ' else '' end",
                "case when passes is null then '' else "
                ~ share_as_text('allowed_gap') ~ " end",
                "'.'",
            ]) }}
        end as words,
        case
            when
                is_gated
                and allowed_gap is not null
                and coalesce(passes, true)
                and {{ dbt.concat(['unsure_words', 'unmeasured_words']) }} <> ''
                then {{ dbt.concat([
                    "'By '", 'attribute', "', '", 'rate_in_words', "': '",
                    'substring(' ~ dbt.concat(['unsure_words', 'unmeasured_words'])
                    ~ ', 3)',
                    "'.'",
                ]) }}
        end as doubt
    from doubted

)

select * from fairness_gate
