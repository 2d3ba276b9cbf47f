{#
  What: parse_number, parse_integer, parse_boolean, blank_to_null and
  blank_id_to_null take what they should and give null for anything else, without
  ever failing.
  When it matters: a macro that fails stops the build at the first dirty row; one
  that takes too much lets a wrong value through, and NaN poisons every sum.
  How to fix: see macros/parse.sql.
#}
{%- set text = dbt.type_string() %}
{%- set length_of_text = 'length(' ~ blank_to_null('value') ~ ')' %}
{%- set length_of_id = 'length(' ~ blank_id_to_null('value') ~ ')' %}
{#- A macro, the type of a column, and its values with what they become. #}
{%- set columns = [
    (parse_number('value'), text, [
        ("'12.5'", '12.5'),
        ("' 12.5 '", '12.5'),
        ("'-3'", '-3'),
        ("'1e3'", '1000'),
        ("'.5'", '0.5'),
        ('null', 'null'),
        ("''", 'null'),
        ("'  '", 'null'),
        ("'NaN'", 'null'),
        ("'inf'", 'null'),
        ("'-Infinity'", 'null'),
        ("'1e400'", 'null'),
        ("'12,5'", 'null'),
        ("'n/a'", 'null'),
        ("'1_000'", 'null'),
        ("'0x1F'", 'null'),
        ("'1d'", 'null'),
    ]),
    (parse_number('value'), 'integer', [('7', '7')]),
    (parse_number('value'), 'double', [
        ('2.5', '2.5'),
        ("'NaN'", 'null'),
        ("'Infinity'", 'null'),
    ]),
    (parse_integer('value'), text, [
        ("'12'", '12'),
        ("' -12 '", '-12'),
        ("'12.0'", '12'),
        ("'2147483647'", '2147483647'),
        ("'2147483648'", 'null'),
        ("'12.5'", 'null'),
        ("'NaN'", 'null'),
        ("'inf'", 'null'),
        ("''", 'null'),
        ("'twelve'", 'null'),
    ]),
    (parse_integer('value'), 'double', [('12', '12'), ('12.5', 'null')]),
    (parse_integer('value'), 'bigint', [('12', '12')]),
    (parse_boolean('value'), text, [
        ("'true'", '1'),
        ("' TRUE '", '1'),
        ("'t'", '1'),
        ("'Yes'", '1'),
        ("'1'", '1'),
        ("'False'", '0'),
        ("'f'", '0'),
        ("'no'", '0'),
        ("'0'", '0'),
        ("'2'", 'null'),
        ("''", 'null'),
        ("'maybe'", 'null'),
    ]),
    (parse_boolean('value'), 'integer', [('1', '1'), ('0', '0')]),
    (parse_boolean('value'), 'double', [('1', '1')]),
    (parse_boolean('value'), 'boolean', [
        ('true', '1'),
        ('false', '0'),
        ('null', 'null'),
    ]),
    (length_of_text, text, [
        ("' ab '", '2'),
        ("''", 'null'),
        ("'   '", 'null'),
        ('null', 'null'),
    ]),
    (length_of_text, 'integer', [('123', '3')]),
    (length_of_id, text, [
        ("'ab'", '2'),
        ("' ab '", '2'),
        ("'ab '", '2'),
        ("'a b'", '3'),
        ("'\u00a0ab'", '2'),
        ("'ab\u3000'", '2'),
        ("'äb '", '2'),
        ("'äb'", '2'),
        ("''", 'null'),
        ("'   '", 'null'),
        ("'\u2009'", 'null'),
        ('null', 'null'),
    ]),
    (length_of_id, 'integer', [('123', '3')]),
] %}

with

{% for _, type, values in columns -%}
values_{{ loop.index }} as (

    {%- for value, expected in values %}
    select
        cast({{ value }} as {{ type }}) as value,
        cast({{ expected }} as double) as expected
    {%- if not loop.last %}

    union all
    {% endif %}
    {%- endfor %}

),

{% endfor -%}
cases as (

    {%- for macro, _, _ in columns %}
    select
        {{ loop.index }} as column_number,
        cast(value as {{ text }}) as value,
        cast({{ macro }} as double) as actual,
        expected
    from values_{{ loop.index }}
    {%- if not loop.last %}

    union all
    {% endif %}
    {%- endfor %}

),

wrong as (

    select * from cases
    where
        coalesce(actual <> expected, false)
        or (actual is null and expected is not null)
        or (actual is not null and expected is null)

)

select * from wrong
