{#
  For tests of a macro: the values of which an expression over column `value` makes
  something else than it should; a row each, none where all are right.
  columns: [(expression, type of the column, [(value, answer)])], in words or none.
#}
{% macro wrong_answers(columns, type_of_answer) %}
with

{% for _, type, values in columns -%}
values_{{ loop.index }} as (

    {%- for value, expected in values %}
    select
        cast({{ text_or_null(value) }} as {{ type }}) as value,
        cast({{ text_or_null(expected) }} as {{ type_of_answer }}) as expected
    {%- if not loop.last %}

    union all
    {% endif %}
    {%- endfor %}

),

{% endfor -%}
answers as (

    {%- for expression, _, _ in columns %}
    select
        {{ loop.index }} as column_number,
        cast(value as {{ dbt.type_string() }}) as value,
        cast({{ expression }} as {{ type_of_answer }}) as actual,
        expected
    from values_{{ loop.index }}
    {%- if not loop.last %}

    union all
    {% endif %}
    {%- endfor %}

),

wrong as (

    select * from answers
    where
        coalesce(actual <> expected, false)
        or (actual is null and expected is not null)
        or (actual is not null and expected is null)

)

select * from wrong
{% endmacro %}


{% macro text_or_null(value) %}
    {{ return('null' if value is none else sql_text(value)) }}
{% endmacro %}
