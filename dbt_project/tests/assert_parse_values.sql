{#
  What: parse_number, parse_integer, parse_boolean, blank_to_null and
  blank_id_to_null take what they should and give null for anything else, without
  ever failing.
  When it matters: a macro that fails stops the build at the first dirty row; one
  that takes too much lets a wrong value through, and NaN poisons every sum.
  How to fix: see macros/parse.sql.
#}
{%- set text = dbt.type_string() %}
{%- set cases = [
    ('number', parse_number("'12.5'"), '12.5'),
    ('number', parse_number("' 12.5 '"), '12.5'),
    ('number', parse_number("'-3'"), '-3'),
    ('number', parse_number("'1e3'"), '1000'),
    ('number', parse_number('7'), '7'),
    ('number', parse_number('cast(2.5 as double)'), '2.5'),
    ('number', parse_number("cast(null as " ~ text ~ ")"), 'null'),
    ('number', parse_number("''"), 'null'),
    ('number', parse_number("'  '"), 'null'),
    ('number', parse_number("'NaN'"), 'null'),
    ('number', parse_number("'inf'"), 'null'),
    ('number', parse_number("'-Infinity'"), 'null'),
    ('number', parse_number("cast('NaN' as double)"), 'null'),
    ('number', parse_number("cast('Infinity' as double)"), 'null'),
    ('number', parse_number("'1e400'"), 'null'),
    ('number', parse_number("'12,5'"), 'null'),
    ('number', parse_number("'n/a'"), 'null'),
    ('number', parse_number("'.5'"), '0.5'),
    ('number', parse_number("'1_000'"), 'null'),
    ('number', parse_number("'0x1F'"), 'null'),
    ('number', parse_number("'1d'"), 'null'),
    ('integer', parse_integer("'12'"), '12'),
    ('integer', parse_integer("' -12 '"), '-12'),
    ('integer', parse_integer("'12.0'"), '12'),
    ('integer', parse_integer('cast(12 as double)'), '12'),
    ('integer', parse_integer('cast(12 as bigint)'), '12'),
    ('integer', parse_integer("'2147483647'"), '2147483647'),
    ('integer', parse_integer("'2147483648'"), 'null'),
    ('integer', parse_integer("'12.5'"), 'null'),
    ('integer', parse_integer('cast(12.5 as double)'), 'null'),
    ('integer', parse_integer("'NaN'"), 'null'),
    ('integer', parse_integer("'inf'"), 'null'),
    ('integer', parse_integer("''"), 'null'),
    ('integer', parse_integer("'twelve'"), 'null'),
    ('boolean', parse_boolean("'true'"), '1'),
    ('boolean', parse_boolean("' TRUE '"), '1'),
    ('boolean', parse_boolean("'t'"), '1'),
    ('boolean', parse_boolean("'Yes'"), '1'),
    ('boolean', parse_boolean("'1'"), '1'),
    ('boolean', parse_boolean('1'), '1'),
    ('boolean', parse_boolean('cast(1 as double)'), '1'),
    ('boolean', parse_boolean('true'), '1'),
    ('boolean', parse_boolean("'False'"), '0'),
    ('boolean', parse_boolean("'f'"), '0'),
    ('boolean', parse_boolean("'no'"), '0'),
    ('boolean', parse_boolean("'0'"), '0'),
    ('boolean', parse_boolean('0'), '0'),
    ('boolean', parse_boolean('false'), '0'),
    ('boolean', parse_boolean("'2'"), 'null'),
    ('boolean', parse_boolean("''"), 'null'),
    ('boolean', parse_boolean("'maybe'"), 'null'),
    ('boolean', parse_boolean('cast(null as boolean)'), 'null'),
    ('blank', 'length(' ~ blank_to_null("' ab '") ~ ')', '2'),
    ('blank', 'length(' ~ blank_to_null('123') ~ ')', '3'),
    ('blank', 'length(' ~ blank_to_null("''") ~ ')', 'null'),
    ('blank', 'length(' ~ blank_to_null("'   '") ~ ')', 'null'),
    ('blank', 'length(' ~ blank_to_null("cast(null as " ~ text ~ ")") ~ ')', 'null'),
    ('id', 'length(' ~ blank_id_to_null("'ab'") ~ ')', '2'),
    ('id', 'length(' ~ blank_id_to_null("' ab '") ~ ')', '2'),
    ('id', 'length(' ~ blank_id_to_null("'ab '") ~ ')', '2'),
    ('id', 'length(' ~ blank_id_to_null("'a b'") ~ ')', '3'),
    ('id', 'length(' ~ blank_id_to_null("'\u00a0ab'") ~ ')', '2'),
    ('id', 'length(' ~ blank_id_to_null("'ab\u3000'") ~ ')', '2'),
    ('id', 'length(' ~ blank_id_to_null("'äb '") ~ ')', '2'),
    ('id', 'length(' ~ blank_id_to_null("'äb'") ~ ')', '2'),
    ('id', 'length(' ~ blank_id_to_null('123') ~ ')', '3'),
    ('id', 'length(' ~ blank_id_to_null("''") ~ ')', 'null'),
    ('id', 'length(' ~ blank_id_to_null("'   '") ~ ')', 'null'),
    ('id', 'length(' ~ blank_id_to_null("'\u2009'") ~ ')', 'null'),
    ('id', 'length(' ~ blank_id_to_null("cast(null as " ~ text ~ ")") ~ ')', 'null'),
] %}

with

cases as (

    {%- for macro, actual, expected in cases %}
    select
        {{ loop.index }} as case_number,
        '{{ macro }}' as macro,
        cast({{ actual }} as double) as actual,
        cast({{ expected }} as double) as expected
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
