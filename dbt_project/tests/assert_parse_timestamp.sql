{#
  What: parse_timestamp takes every shape that the contract allows as UTC, and
  gives null for anything else.
  When it matters: an offset that is ignored moves a fact to another day; a value
  that is taken for a time by chance is never seen in quarantine.
  How to fix: see the engine's own parse_timestamp in macros/parse.sql.
#}
{%- set text = dbt.type_string() %}
{%- set instant = 'timestamptz' if target.type == 'duckdb' else 'timestamp' %}
{#- The type of a column, and its values with the times that they are. #}
{%- set columns = [
    (text, [
        ('2024-03-31T14:05:06', '2024-03-31 14:05:06'),
        ('2024-03-31 14:05:06', '2024-03-31 14:05:06'),
        ('2024-03-31T14:05', '2024-03-31 14:05:00'),
        ('2024-03-31 14:05', '2024-03-31 14:05:00'),
        ('2024-03-31T14:05:06.250', '2024-03-31 14:05:06.25'),
        ('2024-03-31T14:05:06.123456789Z', '2024-03-31 14:05:06.123456'),
        ('2024-03-31T14:05:06Z', '2024-03-31 14:05:06'),
        ('2024-03-31t14:05:06z', '2024-03-31 14:05:06'),
        ('2024-03-31T14:05Z', '2024-03-31 14:05:00'),
        ('2024-03-31T14:05:06+02:00', '2024-03-31 12:05:06'),
        ('2024-03-31T14:05:06+0200', '2024-03-31 12:05:06'),
        ('2024-03-31 14:05:06+02', '2024-03-31 12:05:06'),
        ('2024-03-31 14:05:06 +02:00', '2024-03-31 12:05:06'),
        ('2024-03-31 14:05:06 UTC', '2024-03-31 14:05:06'),
        ('2024-03-31 14:05 UTC', '2024-03-31 14:05:00'),
        ('2024/3/1 4:05', '2024-03-01 04:05:00'),
        ('2024-03-31T14:05+02:00', '2024-03-31 12:05:00'),
        ('2024-03-31T23:30:00-05:30', '2024-04-01 05:00:00'),
        ('2024-03-31', '2024-03-31 00:00:00'),
        (' 2024-03-31 14:05:06 ', '2024-03-31 14:05:06'),
        ('', none),
        ('   ', none),
        ('never', none),
        ('31/03/2024', none),
        ('2024-02-30', none),
        ('2024-13-01', none),
        ('2024-03-31 25:00', none),
        ('1711893906', none),
        ('infinity', none),
        ('-infinity', none),
        ('0001-01-01', none),
        ('9999-12-31', none),
        ('NaN', none),
        ('2024', none),
        ('14:05', none),
        ('2024-03-31 24:00', none),
        ('2024-03-31 14:05:06 Europe/Oslo', none),
        ('2024-03-31 14:05:06 PST', none),
        ('2024-03-31 14:05:06+99', none),
        (none, none),
    ]),
    ('date', [('2024-03-31', '2024-03-31 00:00:00')]),
    ('timestamp', [('2024-03-31 14:05:06', '2024-03-31 14:05:06')]),
    (instant, [('2024-03-31 14:05:06+02:00', '2024-03-31 12:05:06')]),
] %}

with

{% for type, values in columns -%}
values_{{ loop.index }} as (

    {%- for value, expected in values %}
    select
        cast({{ "'" ~ value ~ "'" if value is not none else 'null' }} as {{ type }})
            as value,
        cast({{ "'" ~ expected ~ "'" if expected else 'null' }} as timestamp)
            as expected
    {%- if not loop.last %}

    union all
    {% endif %}
    {%- endfor %}

),

{% endfor -%}
cases as (

    {%- for type, _ in columns %}
    select
        '{{ type }}' as type,
        cast(value as {{ text }}) as value,
        {{ parse_timestamp('value') }} as actual,
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
