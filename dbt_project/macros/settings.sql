{#
  The one place where dbt reads settings. `--vars` beats the environment,
  which beats the default. ml/settings.py reads the same variables with the
  same defaults; pipeline_settings records what a build used, so that Python
  can refuse to run under other ones.
#}
{% macro setting(name) %}
    {% set defaults = {
        'source_system': 'sample',
        'data_raw_path': '',
        'target_definition': '',
        'observation_window_days': '14',
        'prediction_leads': '28,21,14,7',
        'include_attributes': 'false',
        'as_of_date': '',
        'prediction_threshold': '',
        'confidence_threshold': '0',
        'flag_capacity': '50',
        'fairness_max_gap': '',
        'forgotten_path': '',
    } %}
    {% set raw = var(name, env_var(name | upper, defaults[name])) %}
    {% if raw is none %}{% set raw = '' %}{% endif %}
    {% if name == 'prediction_leads' %}
        {{ return(parse_leads(raw)) }}
    {% elif name == 'include_attributes' %}
        {{ return(parse_true_or_false(name, raw)) }}
    {% elif name == 'observation_window_days' %}
        {{ return(parse_whole_number(name, raw, 2, 365)) }}
    {% elif name in (
        'prediction_threshold', 'confidence_threshold', 'fairness_max_gap'
    ) %}
        {{ return(parse_share(name, raw)) }}
    {% elif name == 'flag_capacity' %}
        {{ return(parse_capacity(name, raw)) }}
    {% elif name == 'as_of_date' %}
        {{ return(parse_date(name, raw)) }}
    {% elif name == 'target_definition' %}
        {{ return(parse_target_definition(raw)) }}
    {% endif %}
    {{ return((raw | string).strip()) }}
{% endmacro %}


{% macro refuse_setting(name, value, allowed) %}
    {{ exceptions.raise_compiler_error(
        name | upper ~ "='" ~ value ~ "' is not allowed: " ~ allowed
        ~ ". Set it in the environment, in .env or with --vars."
    ) }}
{% endmacro %}


{% macro parse_true_or_false(name, raw) %}
    {% set text = (raw | string).strip() | lower %}
    {% if text in ('true', '1', 'yes', 'on') %}{{ return(true) }}{% endif %}
    {% if text in ('false', '0', 'no', 'off', '') %}{{ return(false) }}{% endif %}
    {{ refuse_setting(name, raw, 'use true or false') }}
{% endmacro %}


{% macro parse_whole_number(name, raw, low, high) %}
    {% set text = (raw | string).strip() %}
    {% if not modules.re.fullmatch('[0-9]{1,4}', text)
        or text | int < low or text | int > high %}
        {{ refuse_setting(
            name, raw, 'use a whole number from ' ~ low ~ ' to ' ~ high
        ) }}
    {% endif %}
    {{ return(text | int) }}
{% endmacro %}


{% macro parse_capacity(name, raw) %}
    {% set text = (raw | string).strip() %}
    {% if text == '' %}{{ return(none) }}{% endif %}
    {% if not modules.re.fullmatch('[0-9]{1,7}', text)
        or not 1 <= text | int <= 1000000 %}
        {{ refuse_setting(
            name, raw, 'use a whole number from 1 to 1000000, or nothing'
        ) }}
    {% endif %}
    {{ return(text | int) }}
{% endmacro %}


{% macro parse_leads(raw) %}
    {% set items = raw if raw is iterable and raw is not string
        else (raw | string).split(',') %}
    {% set leads = [] %}
    {% for item in items %}
        {% do leads.append(parse_whole_number('prediction_leads', item, 0, 365)) %}
    {% endfor %}
    {{ return(leads | unique | sort(reverse=true) | list) }}
{% endmacro %}


{% macro parse_share(name, raw) %}
    {% set text = (raw | string).strip() %}
    {% if text == '' %}{{ return(none) }}{% endif %}
    {% if not modules.re.fullmatch('[01]|[01]?[.][0-9]+', text)
        or text | float > 1 %}
        {{ refuse_setting(name, raw, 'use a number from 0 to 1, or nothing') }}
    {% endif %}
    {{ return(text | float) }}
{% endmacro %}


{% macro parse_date(name, raw) %}
    {% set text = (raw | string).strip() %}
    {% if text == '' %}{{ return(none) }}{% endif %}
    {% if not modules.re.fullmatch('[0-9]{4}-[0-9]{2}-[0-9]{2}', text) %}
        {{ refuse_setting(name, raw, 'use a day as YYYY-MM-DD, or nothing') }}
    {% endif %}
    {{ return(text) }}
{% endmacro %}


{% macro parse_target_definition(raw) %}
    {% set allowed = [
        'course_repurchased', 'assessment_not_passed', 'assessment_missed',
    ] %}
    {% set text = (raw | string).strip() %}
    {% if text == '' %}
        {{ return(
            'assessment_missed' if setting('source_system') == 'oulad'
            else 'course_repurchased'
        ) }}
    {% endif %}
    {% if text not in allowed %}
        {{ refuse_setting(
            'target_definition', raw, 'use one of ' ~ allowed | join(', ')
        ) }}
    {% endif %}
    {{ return(text) }}
{% endmacro %}
