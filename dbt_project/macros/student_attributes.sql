{#
  The attribute columns of raw table students: those of var student_attributes,
  else of the sample's three those that the table has.
#}
{% macro student_attributes() %}
    {% if var('student_attributes') is not none %}
        {{ return(var('student_attributes')) }}
    {% endif %}
    {% set present = raw_student_columns() %}
    {% set found = [] %}
    {% for attribute in possible_student_attributes() %}
        {% if attribute in present %}{% do found.append(attribute) %}{% endif %}
    {% endfor %}
    {{ return(found) }}
{% endmacro %}


{# Those that are looked for in raw table students. #}
{% macro possible_student_attributes() %}
    {% set named, usual = var('student_attributes'), ['age_band', 'gender', 'region'] %}
    {{ return(usual if named is none else named) }}
{% endmacro %}


{# The columns of raw table students in small letters; none while parsing. #}
{% macro raw_student_columns() %}
    {% set relation = ref('students') if setting('source_system') == 'sample'
        else source('platform', 'students') %}
    {% if not execute %}{{ return([]) }}{% endif %}
    {% if raw_is_in_files() %}
        {% set scan = raw_scan('students') %}
        {% set columns = raw_scan_columns(scan) if scan else [] %}
    {% else %}
        {% set columns = raw_relation_columns(relation) %}
    {% endif %}
    {% set names = [] %}
    {% for column in columns %}
        {% do names.append(column | trim | lower) %}
    {% endfor %}
    {{ return(names) }}
{% endmacro %}
