{#
  Spark has no function that reads files by name as DuckDB has, and a view keeps none
  of their options. So at the start of a run every raw table in DATA_RAW_PATH becomes an
  external table (a place and columns, no data) in schema raw_files, or several where
  files differ, and a view over them, which raw_table() reads.
#}
{% macro register_raw_files() %}
    {% if not raw_is_in_files() %}{{ return('') }}{% endif %}
    {% do run_query('create schema if not exists personal') %}
    {% set listing = raw_listing() %}
    {% for node in graph.sources.values()
        if node.source_name == setting('source_system') %}
        {% set files = raw_files_of(node.name, listing) %}
        {% if files %}
            {% do register_raw_table(node, files) %}
        {% else %}
            {% do run_query('drop view if exists ' ~ raw_file_relation(node.name)) %}
        {% endif %}
    {% endfor %}
{% endmacro %}


{# The view over the files of a raw table; where persons are named, in their schema. #}
{% macro raw_file_relation(table) %}
    {% set found = namespace(schema='raw_files') %}
    {% for node in graph.sources.values()
        if node.name == table and node.config.meta.get('personal') %}
        {% set found.schema = 'personal' %}
    {% endfor %}
    {{ return(api.Relation.create(
        schema=found.schema, identifier='raw_file_' ~ table | lower
    )) }}
{% endmacro %}


{% macro register_raw_table(source, files) %}
    {% set relation = raw_file_relation(source.name) %}
    {% set parts = [] %}
    {% for file in files %}
        {% do parts.append({'place': file, 'columns': file_columns(file)}) %}
    {% endfor %}
    {% set kinds = parts | map(attribute='columns') | map('string') | unique | list %}
    {% if parts | length > 1 and kinds | length == 1 %}
        {% set folder = files[0].split('/')[:-1] | join('/') %}
        {% set parts = [{'place': folder, 'columns': parts[0].columns}] %}
    {% endif %}
    {% set is_csv = (files[0] | lower).endswith('.csv') %}
    {% for part in parts %}
        {% set table = relation.incorporate(
            path={'identifier': relation.identifier ~ '__' ~ loop.index}
        ) %}
        {% do create_file_table(table, part, is_csv) %}
        {% do part.update({'table': table}) %}
    {% endfor %}
    {% do run_query(
        'create or replace view ' ~ relation ~ ' as '
        ~ union_by_name(parts, times_of(source))
    ) %}
{% endmacro %}


{# Names of the columns that are declared as times. #}
{% macro times_of(source) %}
    {% set names = [] %}
    {% for column in source.columns.values() if column.data_type == 'timestamp' %}
        {% do names.append(column.name | lower) %}
    {% endfor %}
    {{ return(names) }}
{% endmacro %}


{# Name and type of each column of a file, {lower-case name: [name, type]}. #}
{% macro file_columns(file) %}
    {% set path = adapter.quote(spark_glob(file)) %}
    {% set scan = 'parquet.' ~ path %}
    {% if (file | lower).endswith('.csv') %}
        {% set scan = 'csv.' ~ path
            ~ " with (header = 'true', quote = '\"', escape = '\"')" %}
    {% endif %}
    {% set columns = {} %}
    {% for row in run_query('describe select * from ' ~ scan).rows %}
        {% do columns.update({row[0] | lower: [row[0], row[1]]}) %}
    {% endfor %}
    {{ return(columns) }}
{% endmacro %}


{% macro create_file_table(table, part, is_csv) %}
    {% set items = [] %}
    {% for name, type in part.columns.values() %}
        {% do items.append(adapter.quote(name) ~ ' ' ~ type) %}
    {% endfor %}
    {% set options = "pathGlobFilter '*.[pP][aA][rR][qQ][uU][eE][tT]'" %}
    {% if is_csv %}
        {# A file whose header has changed since is an error. #}
        {% set options = spark_csv_options()
            ~ ", enforceSchema 'false', pathGlobFilter '*.[cC][sS][vV]'" %}
    {% endif %}
    {# In a place, * and [ mean themselves. #}
    {% set options = options ~ ", '__globPaths__' 'false'" %}
    {% do run_query('drop table if exists ' ~ table) %}
    {% do run_query(
        'create table ' ~ table ~ ' (' ~ items | join(', ') ~ ') using '
        ~ ('csv' if is_csv else 'parquet') ~ ' options (' ~ options ~ ') location '
        ~ sql_text(part.place)
    ) %}
{% endmacro %}


{# As DuckDB's union_by_name: a column that a part lacks is null there, and one that is
   text in some part is text in all. #}
{% macro union_by_name(parts, times) %}
    {% set names = {} %}
    {% set types = {} %}
    {% for part in parts %}
        {% for key, column in part.columns.items() %}
            {% do names.update({key: names.get(key, column[0])}) %}
            {% do types.update({key: types.get(key, []) + [column[1]]}) %}
        {% endfor %}
    {% endfor %}
    {% set selects = [] %}
    {% for part in parts %}
        {% set items = [] %}
        {% for key, name in names.items() %}
            {% set value = 'null' %}
            {% if key in part.columns %}
                {% set value = file_value(
                    part.columns[key], types[key], key in times
                ) %}
            {% endif %}
            {% do items.append(value ~ ' as ' ~ adapter.quote(name)) %}
        {% endfor %}
        {% do selects.append('select ' ~ items | join(', ') ~ ' from ' ~ part.table) %}
    {% endfor %}
    {{ return(selects | join(' union all ')) }}
{% endmacro %}


{% macro file_value(column, types, is_time) %}
    {% set value = adapter.quote(column[0]) %}
    {% if is_time and column[1] == 'bigint' %}
        {# Nanoseconds, which Spark has no type for. #}
        {% set value = 'timestamp_micros(' ~ value ~ ' div 1000)' %}
    {% endif %}
    {% if 'string' in types and types | unique | list | length > 1 %}
        {{ return('cast(' ~ value ~ ' as string)') }}
    {% endif %}
    {{ return(value) }}
{% endmacro %}
