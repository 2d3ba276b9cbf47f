{# A canonical model of the chosen source; `sample` is read by `platform`. #}
{% macro canonical(entity) %}
    {% set source = setting('source_system') %}
    {% set folder = 'platform' if source == 'sample' else source %}
    {{ return(ref(folder ~ '__' ~ entity)) }}
{% endmacro %}


{# The kinds of assessment that are predicted, as SQL literals. #}
{% macro target_kinds() %}
    {% set kinds = var('target_kinds') %}
    {% if not kinds %}
        {% if setting('target_definition') == 'course_repurchased' %}
            {% set kinds = ['exam'] %}
        {% elif setting('source_system') == 'oulad' %}
            {% set kinds = ['assignment'] %}
        {% else %}
            {% set kinds = ['assignment', 'exam', 'quiz'] %}
        {% endif %}
    {% endif %}
    {% set unknown = kinds | reject('in', ['assignment', 'exam', 'quiz']) | list %}
    {% if unknown %}
        {{ refuse_setting(
            'target_kinds', unknown | join(', '), 'use exam, assignment, quiz'
        ) }}
    {% endif %}
    {{ return("'" ~ kinds | sort | join("', '") ~ "'") }}
{% endmacro %}


{# The attributes that students have, from the var or else from the data. #}
{% macro attribute_names() %}
    {# Before anything else, so that dbt knows of the dependency while parsing. #}
    {% set attributes = canonical('student_attributes') %}
    {% if var('student_attributes') %}
        {{ return(var('student_attributes')) }}
    {% endif %}
    {% if not execute %}{{ return([]) }}{% endif %}
    {% set found = run_query(
        'select distinct attribute from ' ~ attributes ~ ' order by attribute'
    ) %}
    {{ return(found.columns[0].values() | list) }}
{% endmacro %}
