{# A custom schema is used as it is, so that tables keep the names users know. #}
{% macro generate_schema_name(custom_schema_name, node) %}
    {{ return(custom_schema_name or target.schema) }}
{% endmacro %}
