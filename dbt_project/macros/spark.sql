{#
  Where dbt's own macros for Spark do something else than DuckDB, or nothing: dbt
  takes these instead. tests/macros/ and tests/spark/ compare both engines.
#}


{# ---------- before and after a run #}

{% macro begin_run() %}
    {% if execute %}{{ return(adapter.dispatch('begin_run')()) }}{% endif %}
{% endmacro %}

{% macro default__begin_run() %}{% endmacro %}

{% macro spark__begin_run() %}
    {% do run_query('create schema if not exists raw_files') %}
    {% if flags.WHICH in ['build', 'run', 'seed'] %}
        {% if run_query("show tables in raw_files like 'unfinished_run'").rows %}
            {% do remove_leftovers() %}
        {% endif %}
        {% do run_query('create table if not exists raw_files.unfinished_run (a int)') %}
    {% endif %}
    {% do register_forgotten() %}
    {% do register_raw_files() %}
{% endmacro %}


{% macro end_run() %}
    {% if execute %}{{ return(adapter.dispatch('end_run')()) }}{% endif %}
{% endmacro %}

{% macro default__end_run() %}{% endmacro %}

{% macro spark__end_run() %}
    {% if flags.WHICH in ['build', 'run', 'seed'] %}
        {% do run_query('drop table if exists raw_files.unfinished_run') %}
    {% endif %}
{% endmacro %}


{#
  A run that was killed leaves files where a table was to be, and Spark makes no table
  over files. A table that is pointed at them takes them along when it is dropped.
#}
{% macro remove_leftovers() %}
    {% for node in graph.nodes.values()
        if node.config.materialized in ['table', 'incremental', 'seed'] %}
        {% set relation = adapter.get_relation(
            database=none, schema=node.schema, identifier=node.alias
        ) %}
        {% if relation is none %}
            {% do run_query('create schema if not exists ' ~ node.schema) %}
            {% set holder = node.schema ~ '.leftovers' %}
            {% do run_query('create table ' ~ holder ~ ' (a int)') %}
            {# Of a schema Spark tells a blank in its place as %20. #}
            {% set place = run_query('describe formatted ' ~ holder).rows
                | selectattr(0, 'equalto', 'Location') | map(attribute=1) | first %}
            {% do run_query(
                'alter table ' ~ holder ~ ' set location '
                ~ sql_text(place.rpartition('/')[0] ~ '/' ~ node.alias)
            ) %}
            {% do run_query('drop table ' ~ holder) %}
        {% endif %}
    {% endfor %}
{% endmacro %}


{# ---------- dates and text #}

{# dbt-spark loses fractions of a second. #}
{% macro spark__dateadd(datepart, interval, from_date_or_timestamp) -%}
    timestampadd(
        {{ datepart }},
        cast({{ interval }} as int),
        cast({{ from_date_or_timestamp }} as timestamp)
    )
{%- endmacro %}


{# How often the clock or the calendar moves on between two times, as on DuckDB;
   dbt-spark rounds hours and shorter. Days and clock times are UTC. #}
{% macro spark__datediff(first_date, second_date, datepart) -%}
    {%- set seconds = {'hour': 3600, 'minute': 60, 'second': 1} -%}
    {%- if datepart == 'day' -%}
    datediff(cast({{ second_date }} as date), cast({{ first_date }} as date))
    {%- elif datepart in seconds -%}
    (
        floor(unix_seconds(cast({{ second_date }} as timestamp)) / {{ seconds[datepart] }})
        - floor(unix_seconds(cast({{ first_date }} as timestamp)) / {{ seconds[datepart] }})
    )
    {%- else -%}
    {{ exceptions.raise_compiler_error(
        'datediff in ' ~ datepart ~ 's is not there for Spark: add it to '
        ~ 'macros/spark.sql.'
    ) }}
    {%- endif -%}
{%- endmacro %}


{# dbt-spark takes the delimiter for a regular expression. #}
{% macro spark__split_part(string_text, delimiter_text, part_number) -%}
    split_part({{ string_text }}, {{ delimiter_text }}, {{ part_number }})
{%- endmacro %}


{# Contracts name types as DuckDB does. #}
{% macro spark__get_empty_schema_sql(columns) %}
    select
    {% for column in columns.values() %}
        cast(null as {{ contract_type(column.data_type) }}) as {{ column.name }}
        {{- ',' if not loop.last }}
    {% endfor %}
{% endmacro %}


{# ---------- seeds: dbt-spark writes values into statements without quoting them #}

{% macro spark__create_csv_table(model, agate_table) %}
    {% set items = seed_columns(model, agate_table) %}
    {% call statement('_') %}
        create table {{ this.render() }} ({{ items | join(', ') }})
    {% endcall %}
{% endmacro %}


{% macro spark__load_csv_rows(model, agate_table) %}
    {% set view = adapter.quote('seed_' ~ this.identifier) %}
    {% set names = [] %}
    {% for name in agate_table.column_names %}
        {% do names.append(adapter.quote(name) ~ ' string') %}
    {% endfor %}
    {% do run_query(
        'create or replace temporary view ' ~ view ~ ' (' ~ names | join(', ') ~ ')'
        ~ ' using csv options (path '
        ~ sql_text(spark_glob(model.root_path ~ '/' ~ model.original_file_path))
        ~ ', ' ~ spark_csv_options() ~ ')'
    ) %}
    {% set sql %}insert into {{ this.render() }} select * from {{ view }}{% endset %}
    {% do adapter.add_query(sql) %}
    {% do run_query('drop view ' ~ view) %}
    {{ return(sql) }}
{% endmacro %}


{% macro seed_columns(model, agate_table) %}
    {% set types = model.config.get('column_types', {}) %}
    {% set items = [] %}
    {% for name in agate_table.column_names %}
        {% do items.append(
            adapter.quote(name) ~ ' ' ~ contract_type(types.get(name, 'varchar'))
        ) %}
    {% endfor %}
    {{ return(items) }}
{% endmacro %}


{# ---------- paths #}

{# Nothing is guessed: text only, an empty value is null, a row of another length
   is an error; as DuckDB is told in raw_scan(). #}
{% macro spark_csv_options() %}
    {{ return(
        "header 'true', sep ',', quote '\"', escape '\"', multiLine 'true', "
        ~ "nullValue '', emptyValue '', mode 'FAILFAST', columnPruning 'false'"
    ) }}
{% endmacro %}


{# A path in which *, ?, [, { and , mean themselves. #}
{% macro spark_glob(path) %}
    {{ return(modules.re.sub('([\\\\*?\\[\\]{},])', '\\\\\\1', path)) }}
{% endmacro %}


{# A path as Spark names it; a relative one counts from the folder dbt runs in, and ~ is
   one's own, as on DuckDB. #}
{% macro spark_path(path) %}
    {% if path.startswith('~/') %}
        {% set path = env_var('HOME') ~ path[1:] %}
    {% endif %}
    {% if not path.startswith('/') and '://' not in path %}
        {% set here = run_query(
            "select reflect('java.lang.System', 'getProperty', 'user.dir')"
        ).rows[0][0] %}
        {% set path = here ~ '/' ~ path %}
    {% endif %}
    {% set root = path.split('://')[0] ~ '://' if '://' in path else '/' %}
    {% set parts = [] %}
    {% for part in path[root | length:].split('/') if part not in ['', '.'] %}
        {% if part == '..' %}{% do parts.pop() %}
        {% else %}{% do parts.append(part) %}{% endif %}
    {% endfor %}
    {{ return(root ~ parts | join('/')) }}
{% endmacro %}
