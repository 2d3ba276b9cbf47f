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
{%- set columns = [
    (parse_number('value'), text, [
        ('12.5', '12.5'),
        (' 12.5 ', '12.5'),
        ('-3', '-3'),
        ('1e3', '1000'),
        ('.5', '0.5'),
        (none, none),
        ('', none),
        ('  ', none),
        ('NaN', none),
        ('inf', none),
        ('-Infinity', none),
        ('1e400', none),
        ('12,5', none),
        ('n/a', none),
        ('1_000', none),
        ('0x1F', none),
        ('1d', none),
    ]),
    (parse_number('value'), 'integer', [('7', '7')]),
    (parse_number('value'), 'double', [
        ('2.5', '2.5'),
        ('NaN', none),
        ('Infinity', none),
    ]),
    (parse_integer('value'), text, [
        ('12', '12'),
        (' -12 ', '-12'),
        ('12.0', '12'),
        ('2147483647', '2147483647'),
        ('2147483648', none),
        ('12.5', none),
        ('NaN', none),
        ('inf', none),
        ('', none),
        ('twelve', none),
    ]),
    (parse_integer('value'), 'double', [('12', '12'), ('12.5', none)]),
    (parse_integer('value'), 'bigint', [('12', '12')]),
    (parse_boolean('value'), text, [
        ('true', '1'),
        (' TRUE ', '1'),
        ('t', '1'),
        ('Yes', '1'),
        ('1', '1'),
        ('False', '0'),
        ('f', '0'),
        ('no', '0'),
        ('0', '0'),
        ('2', none),
        ('', none),
        ('maybe', none),
    ]),
    (parse_boolean('value'), 'integer', [('1', '1'), ('0', '0')]),
    (parse_boolean('value'), 'double', [('1', '1')]),
    (parse_boolean('value'), 'boolean', [
        ('true', '1'),
        ('false', '0'),
        (none, none),
    ]),
    (length_of_text, text, [
        (' ab ', '2'),
        ('', none),
        ('   ', none),
        (none, none),
    ]),
    (length_of_text, 'integer', [('123', '3')]),
    (length_of_id, text, [
        ('ab', '2'),
        (' ab ', '2'),
        ('ab ', '2'),
        ('a b', '3'),
        ('\u00a0ab', '2'),
        ('ab\u3000', '2'),
        ('äb ', '2'),
        ('äb', '2'),
        ('', none),
        ('   ', none),
        ('\u2009', none),
        (none, none),
    ]),
    (length_of_id, 'integer', [('123', '3')]),
] %}

{{ wrong_answers(columns, 'double') }}
