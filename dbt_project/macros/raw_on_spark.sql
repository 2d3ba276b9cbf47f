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
            {% do register_raw_table(node, files, listing) %}
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


{% macro register_raw_table(source, files, listing) %}
    {% set relation = raw_file_relation(source.name) %}
    {% set is_csv = (files[0] | lower).endswith('.csv') %}
    {% set declared = declared_types(source) %}
    {% set parts = [] %}
    {% for file in files %}
        {% set columns = file_columns(file) %}
        {# A CSV has to be given all of its columns. #}
        {% if not is_csv %}{% set columns = columns_of(columns, declared) %}{% endif %}
        {% do parts.append({'place': file, 'columns': columns}) %}
    {% endfor %}
    {% set kinds = parts | map(attribute='columns') | map('string') | unique | list %}
    {% if parts | length > 1 and kinds | length == 1
        and not has_folders(files[0], listing) %}
        {% set folder = files[0].split('/')[:-1] | join('/') %}
        {% set parts = [{'place': folder, 'columns': parts[0].columns}] %}
    {% endif %}
    {% for part in parts %}
        {% set table = relation.incorporate(
            path={'identifier': relation.identifier ~ '__' ~ loop.index}
        ) %}
        {% do create_file_table(table, part, is_csv) %}
        {% do part.update({'table': table}) %}
    {% endfor %}
    {% do run_query(
        'create or replace view ' ~ relation ~ ' as ' ~ union_by_name(parts, declared)
    ) %}
{% endmacro %}


{# Of a table, with the attributes that are looked for: {lower-case name: type}. #}
{% macro declared_types(source) %}
    {% set types = {} %}
    {% for column in source.columns.values() %}
        {% do types.update({column.name | lower: column.data_type}) %}
    {% endfor %}
    {% for name in possible_student_attributes() if source.name == 'students' %}
        {% do types.update({name | lower: types.get(name | lower, 'varchar')}) %}
    {% endfor %}
    {{ return(types) }}
{% endmacro %}


{# Those that somebody asks for; others may be of types that Spark does not have. #}
{% macro columns_of(columns, declared) %}
    {% set asked = {} %}
    {% for key, column in columns.items() if key in declared %}
        {% do asked.update({key: column}) %}
    {% endfor %}
    {{ return(asked or columns) }}
{% endmacro %}


{# Whether folders lie beside a file: one named region=north would be taken for a
   partition, and the files beside it left out. #}
{% macro has_folders(file, listing) %}
    {% set folder = file.split('/')[:-1] | join('/') ~ '/' %}
    {% set inside = [] %}
    {% for _, name, address in listing
        if address.startswith(folder) and '/' in address[folder | length:] %}
        {% do inside.append(name) %}
    {% endfor %}
    {{ return(inside | length > 0) }}
{% endmacro %}


{# Name and type of each column of a file, {name in lower case, without blanks around
   it: [name, type]}. #}
{% macro file_columns(file) %}
    {% set path = adapter.quote(spark_glob(file)) %}
    {% set scan = 'parquet.' ~ path %}
    {% if (file | lower).endswith('.csv') %}
        {% set scan = 'csv.' ~ path
            ~ " with (header = 'true', quote = '\"', escape = '\"',"
            ~ " ignoreLeadingWhiteSpace = 'true')" %}
    {% endif %}
    {% set columns = {} %}
    {% for row in run_query('describe select * from ' ~ scan).rows %}
        {% do columns.update({row[0] | trim | lower: [row[0], row[1]]}) %}
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
        {# A file whose header has changed since is an error; a quote may follow a blank. #}
        {% set options = spark_csv_options()
            ~ ", ignoreLeadingWhiteSpace 'true', enforceSchema 'false'"
            ~ ", pathGlobFilter '*.[cC][sS][vV]'" %}
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


{# As DuckDB's union_by_name: a column that a part lacks is null there. #}
{% macro union_by_name(parts, declared) %}
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
                    part.columns[key], types[key], declared.get(key, 'varchar')
                ) %}
            {% endif %}
            {% do items.append(value ~ ' as ' ~ adapter.quote(name)) %}
        {% endfor %}
        {% do items.append('_metadata.file_name as ' ~ adapter.quote(path_column())) %}
        {% do selects.append('select ' ~ items | join(', ') ~ ' from ' ~ part.table) %}
    {% endfor %}
    {{ return(selects | join(' union all ')) }}
{% endmacro %}


{#
  A value as the other files have it: as it is where all are numbers, or all times, or
  of one type that may be taken for the declared one; else as text, which the macros
  of parse.sql read as well.
#}
{% macro file_value(column, types, declared) %}
    {% set value = adapter.quote(column[0]) %}
    {% set is_time = declared in ['timestamp', 'date'] %}
    {% if is_time and column[1] == 'bigint' %}
        {# Nanoseconds, which Spark has no type for. #}
        {% set value = 'timestamp_micros(' ~ value ~ ' div 1000)' %}
    {% endif %}
    {% set kinds = [] %}
    {% for type in types %}
        {% do kinds.append(kind_of_type(type, is_time)) %}
    {% endfor %}
    {% set kinds = kinds | unique | list %}
    {% set readable = {
        'timestamp': ['time', 'string', 'number'],
        'date': ['time', 'string', 'number'],
        'double': ['number', 'string', 'boolean'],
        'integer': ['number', 'string', 'boolean'],
    }.get(declared, kinds) %}
    {% if kinds | length == 1 and kinds[0] in readable %}{{ return(value) }}{% endif %}
    {{ return(value_as_text(value, column[1], 'number' in kinds)) }}
{% endmacro %}


{# number, time, or the type itself. #}
{% macro kind_of_type(type, is_time) %}
    {% if type in ['date', 'timestamp', 'timestamp_ntz']
        or is_time and type == 'bigint' %}
        {{ return('time') }}
    {% elif type in ['tinyint', 'smallint', 'int', 'bigint', 'float', 'double']
        or type.startswith('decimal') %}
        {{ return('number') }}
    {% endif %}
    {{ return(type) }}
{% endmacro %}


{# As DuckDB writes it: whole doubles without an exponent, truth among numbers as one. #}
{% macro value_as_text(value, type, among_numbers) %}
    {% if type == 'boolean' and among_numbers %}
        {% set value = 'cast(' ~ value ~ ' as int)' %}
    {% elif type in ['float', 'double'] %}
        {{ return(
            'case when ' ~ value ~ ' = floor(' ~ value ~ ') and abs(' ~ value
            ~ ') < 1e15 then cast(cast(' ~ value ~ ' as decimal(17, 1)) as string)'
            ~ ' else cast(' ~ value ~ ' as string) end'
        ) }}
    {% endif %}
    {{ return('cast(' ~ value ~ ' as string)') }}
{% endmacro %}
