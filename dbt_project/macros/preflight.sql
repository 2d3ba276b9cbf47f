{#
  Looks at the raw data before anything is built: missing tables and columns,
  wrong types, files that cannot be read. Everything wrong is reported at once.
  The work is done by ml/preflight.py, which dbt-duckdb loads as a plugin.
#}
{% macro preflight() %}
    {% if execute %}{{ return(adapter.dispatch('preflight')()) }}{% endif %}
{% endmacro %}

{# Engines other than DuckDB: run `python -m ml.preflight` before the build. #}
{% macro default__preflight() %}{% endmacro %}

{% macro duckdb__preflight() %}
    {% set attributes = var('student_attributes') or [] %}
    {% set report = run_query(
        'select raw_data_report('
        ~ sql_text(setting('source_system')) ~ ', '
        ~ sql_text(setting('data_raw_path')) ~ ', '
        ~ sql_text(tojson(attributes)) ~ ')'
    ).columns[0].values()[0] %}
    {% if report %}{{ exceptions.raise_compiler_error(report) }}{% endif %}
{% endmacro %}
