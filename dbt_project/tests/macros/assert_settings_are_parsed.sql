{#
  What: a setting means the same however it is written: as text from the environment,
  as a number or a list from --vars, with blanks around it, or left empty.
  When it matters: 'false' that counts as true, or leads in another order, changes what
  is built without a word. What is refused stops dbt, and cannot be shown here.
  How to fix: see macros/settings.sql, and ml/settings.py, which has to agree.
#}

{%- set cases = [
    ('leads', parse_leads('28,21,14,7') | join(','), '28,21,14,7'),
    ('leads, any order', parse_leads(' 7 , 28,14') | join(','), '28,14,7'),
    ('leads, repeated', parse_leads('7,7,0') | join(','), '7,0'),
    ('leads, a number', parse_leads(14) | join(','), '14'),
    ('leads, a list', parse_leads([7, 14]) | join(','), '14,7'),
    ('true', parse_true_or_false('include_attributes', 'true'), true),
    ('TRUE', parse_true_or_false('include_attributes', ' TRUE '), true),
    ('a boolean', parse_true_or_false('include_attributes', true), true),
    ('1', parse_true_or_false('include_attributes', 1), true),
    ('yes', parse_true_or_false('include_attributes', 'yes'), true),
    ('false', parse_true_or_false('include_attributes', 'False'), false),
    ('0', parse_true_or_false('include_attributes', '0'), false),
    ('empty', parse_true_or_false('include_attributes', ''), false),
    ('whole number', parse_whole_number('a', '14', 2, 365), 14),
    ('lowest', parse_whole_number('a', ' 2 ', 2, 365), 2),
    ('highest', parse_whole_number('a', 365, 2, 365), 365),
    ('leading zero', parse_whole_number('a', '07', 2, 365), 7),
    ('share', parse_share('a', '0.25'), 0.25),
    ('share without zero', parse_share('a', '.5'), 0.5),
    ('share, nothing', parse_share('a', '0'), 0.0),
    ('share, all', parse_share('a', 1), 1.0),
    ('share, all with places', parse_share('a', '1.0'), 1.0),
    ('share, empty', parse_share('a', ' '), none),
    ('date', parse_date('a', ' 2024-02-29 '), '2024-02-29'),
    ('date, empty', parse_date('a', ''), none),
    ('target', parse_target_definition(' assessment_missed '), 'assessment_missed'),
    ('target, empty', parse_target_definition('') in [
        'assessment_missed', 'course_repurchased'
    ], true),
] %}

with

cases as (

    {%- for tested, actual, expected in cases %}
    select
        '{{ tested }}' as tested,
        '{{ actual }}' as actual,
        '{{ expected }}' as expected
    {%- if not loop.last %}

    union all
    {% endif %}
    {%- endfor %}

),

wrong as (

    select * from cases
    where actual <> expected

)

select * from wrong
