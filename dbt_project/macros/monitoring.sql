{# What the models of marts/monitoring share. #}


{# The lead by which a model is judged: the one nearest to 14 days, the longer of
   two; ml/dataset.py headline_lead says the same. #}
{% macro headline_lead() %}
    {% set best = namespace(lead=none) %}
    {% for lead in setting('prediction_leads') %}
        {% if best.lead is none or (lead - 14) | abs < (best.lead - 14) | abs %}
            {% set best.lead = lead %}
        {% endif %}
    {% endfor %}
    {{ return(best.lead) }}
{% endmacro %}


{# The day under a key of a JSON text as Python writes it, null where it has none. #}
{% macro json_day(column, key) -%}
    cast(
        nullif(substring(
            {{ dbt.split_part(column, "'\"" ~ key ~ "\": \"'", 2) }}, 1, 10
        ), '') as date
    )
{%- endmacro %}


{# The features as _student_features_14d.yml documents them, and attributes where
   they are features: name, family and whether the values are words. #}
{% macro model_features() %}
    {% set attributes = attribute_names() if setting('include_attributes') else [] %}
    {% if not execute %}{{ return([]) }}{% endif %}
    {% set node = graph.nodes['model.' ~ project_name ~ '.student_features_14d'] %}
    {% set found = [] %}
    {% for column in node.columns.values() if column.meta.get('family') %}
        {% do found.append({
            'name': column.name,
            'family': column.meta.family,
            'is_text': column.data_type == 'varchar',
        }) %}
    {% endfor %}
    {% for name in attributes %}
        {% do found.append({
            'name': 'attribute_' ~ name, 'family': 'attribute', 'is_text': true,
        }) %}
    {% endfor %}
    {{ return(found) }}
{% endmacro %}


{# Upper ends of the first nine tenths of the reference, from column tile (1 to 10). #}
{% macro decile_ends(value) %}
    {%- for tile in range(1, 10) %}
    max(case when tile = {{ tile }} then {{ value }} end) as end_{{ tile }}
    {{- ',' if not loop.last }}
    {%- endfor %}
{%- endmacro %}


{# Number of the bin of a value: how many of the ends lie below it. #}
{% macro decile_of(value) %}
    {%- for tile in range(1, 10) %}
    case when {{ value }} > end_{{ tile }} then 1 else 0 end
    {{- ' +' if not loop.last }}
    {%- endfor %}
{%- endmacro %}


{#
  One bin's part of the population stability index, (q - p) * ln(q / p). Half a
  point is added to every bin on both sides, so that an empty bin is no infinity.
  A decimal, because sums of floats depend on the order of rows.
#}
{% macro stability_term(then, now, all_then, all_now, bins) -%}
    {%- set p = '((' ~ then ~ ' + 0.5e0) / (' ~ all_then ~ ' + 0.5e0 * ' ~ bins ~ '))' -%}
    {%- set q = '((' ~ now ~ ' + 0.5e0) / (' ~ all_now ~ ' + 0.5e0 * ' ~ bins ~ '))' -%}
    {{ as_decimal('(' ~ q ~ ' - ' ~ p ~ ') * ln(' ~ q ~ ' / ' ~ p ~ ')', 18, 9) }}
{%- endmacro %}


{#
  The index that chance alone stays below 9,999 times of 10,000 where nothing has moved
  (some eighty features are looked at every day):
  the 99.99 % point of chi-square with bins - 1 degrees of freedom, times
  1/then + 1/now (Yurdakul and Naranjo, Journal of Risk Model Validation 14, 2020);
  the point by Wilson and Hilferty (PNAS 17, 1931). Counts of students, not of
  points, because the points of one student resemble each other.
#}
{% macro stability_by_chance(bins, then, now) -%}
    {%- set freedom = 'nullif(' ~ as_number(bins) ~ ' - 1, 0)' -%}
    {{ freedom }} * power(
        1 - 2 / (9 * {{ freedom }}) + 3.7190165 * sqrt(2 / (9 * {{ freedom }})), 3
    ) * ({{ ratio(1, then) }} + {{ ratio(1, now) }})
{%- endmacro %}


{# none, watch from 0.1, alert from 0.25 (the usual reading: Siddiqi, Credit Risk
   Scorecards, 2006), and only beyond chance; unknown where nothing was compared. #}
{% macro stability_level(stability, by_chance) -%}
    case
        when {{ stability }} is null then 'unknown'
        when {{ stability }} <= coalesce({{ by_chance }}, 0) then 'none'
        when {{ stability }} >= 0.25 then 'alert'
        when {{ stability }} >= 0.1 then 'watch'
        else 'none'
    end
{%- endmacro %}
