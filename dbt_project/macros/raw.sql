{#
  The one place where staging meets raw data. Renders a subselect with every
  column that the source's YAML (`_<source>__sources.yml`) declares for the
  table: values as Parquet types them, or as text where the file is a CSV, so
  cast with the macros of parse.sql. An optional column that is absent becomes
  a null of its declared type, an absent optional table an empty subselect.

  Where the rows come from:
    SOURCE_SYSTEM=sample   the seed of the same name
    DATA_RAW_PATH set      <path>/<table>.parquet, <path>/<table>.csv, or a
                           folder <path>/<table>/ of such files
    DATA_RAW_PATH empty    the table in schema `raw` of the warehouse

  `extra_columns` names columns beyond the contract (the attribute columns of
  students); they must exist. `with_file=true` adds `source_file`, the name of the
  file that a row is in, or nothing where it is in none.

  Rows of students who were forgotten are left out (macros/forgotten.sql);
  `and_forgotten=true` reads them too, which is for counting only.

  Usage: from {{ raw_table('platform', 'courses') }} as courses
#}
{% macro raw_table(
    source_name, table, extra_columns=[], and_forgotten=false, with_file=false
) %}
    {# Tells dbt about the dependency, also at parse time. #}
    {% set relation = ref(table) if setting('source_system') == 'sample'
        else source(source_name, table) %}
    {% if not execute %}{{ return('(select 1 as not_parsed)') }}{% endif %}

    {% set contract = raw_contract(source_name, table) %}
    {% if raw_is_in_files() %}
        {% set scan = raw_scan(table, with_file) %}
        {% set present = raw_scan_columns(scan) if scan else [] %}
    {% else %}
        {% set present = raw_relation_columns(relation) %}
        {% set scan = relation if present else none %}
    {% endif %}
    {% if scan is none and not contract.is_optional %}
        {{ refuse_raw_table(table) }}
    {% endif %}
    {{ return(raw_select(
        table, contract, present, scan, extra_columns, and_forgotten, with_file
    )) }}
{% endmacro %}


{% macro raw_is_in_files() %}
    {{ return(
        setting('source_system') != 'sample' and setting('data_raw_path') != ''
    ) }}
{% endmacro %}


{% macro refuse_raw_table(table) %}
    {{ exceptions.raise_compiler_error(
        "Raw table '" ~ table ~ "' was not found "
        ~ ("in DATA_RAW_PATH='" ~ setting('data_raw_path') ~ "'"
            if raw_is_in_files() else "in schema raw of the warehouse")
        ~ ". Add it, or point DATA_RAW_PATH at the files; "
        ~ "`python -m ml.preflight` lists everything that is missing."
    ) }}
{% endmacro %}


{# What the source's YAML says of one table. #}
{% macro raw_contract(source_name, table) %}
    {% for node in graph.sources.values() %}
        {% if node.source_name == source_name and node.name == table %}
            {{ return({
                'is_optional': node.config.meta.get('optional', false),
                'columns': node.columns.values() | list,
            }) }}
        {% endif %}
    {% endfor %}
    {{ exceptions.raise_compiler_error(
        "Table '" ~ table ~ "' is not declared in _" ~ source_name
        ~ "__sources.yml. Declare it there, with its columns."
    ) }}
{% endmacro %}


{% macro raw_select(
    table, contract, present, scan, extra_columns, and_forgotten, with_file
) %}
    {# Names are matched whatever their case and surrounding blanks. #}
    {% set actual = {} %}
    {% for name in present %}{% do actual.update({name | trim | lower: name}) %}{% endfor %}
    {% set items = [] %}
    {% set conditions = [] if scan else ['1 = 0'] %}
    {% for column in contract.columns %}
        {% set name = actual.get(column.name | lower) %}
        {% set is_optional = column.config.meta.get('optional', false) %}
        {% if name is not none %}
            {% set value = adapter.quote(name) %}
            {% if column.name | lower in student_columns() and not and_forgotten %}
                {% do conditions.append(not_forgotten(scan, value)) %}
            {% endif %}
        {% elif scan is none or is_optional %}
            {% set value = 'cast(null as ' ~ contract_type(column.data_type) ~ ')' %}
        {% else %}
            {{ refuse_raw_column(table, column.name) }}
        {% endif %}
        {% do items.append(value ~ ' as ' ~ adapter.quote(column.name)) %}
    {% endfor %}
    {% for column in extra_columns %}
        {% set name = actual.get(column | lower) %}
        {% if name is none %}{{ refuse_raw_column(table, column) }}{% endif %}
        {% do items.append(adapter.quote(name) ~ ' as ' ~ adapter.quote(column)) %}
    {% endfor %}
    {% if with_file %}
        {% set name = source_file() if raw_is_in_files() and scan else "''" %}
        {% do items.append(name ~ ' as source_file') %}
    {% endif %}
    {{ return(
        '(select ' ~ items | join(', ')
        ~ (' from ' ~ scan if scan else '')
        ~ (' where ' ~ conditions | join(' and ') if conditions else '') ~ ')'
    ) }}
{% endmacro %}


{% macro refuse_raw_column(table, column) %}
    {{ exceptions.raise_compiler_error(
        "Raw table '" ~ table ~ "' has no column '" ~ column
        ~ "'. Add it to the data; `python -m ml.preflight` lists everything "
        ~ "that is missing."
    ) }}
{% endmacro %}


{# The engine's name of a type of a contract. #}
{% macro contract_type(data_type) %}
    {{ return(adapter.dispatch('contract_type')(data_type)) }}
{% endmacro %}

{% macro default__contract_type(data_type) %}
    {{ return({'varchar': 'string', 'integer': 'int'}.get(data_type, data_type)) }}
{% endmacro %}

{% macro duckdb__contract_type(data_type) %}
    {{ return(data_type) }}
{% endmacro %}


{% macro raw_relation_columns(relation) %}
    {% set found = load_relation(relation) %}
    {% if found is none %}{{ return([]) }}{% endif %}
    {{ return(adapter.get_columns_in_relation(found) | map(attribute='name') | list) }}
{% endmacro %}


{# ---------- what engines say differently #}

{#
  A relation, or table function, over the files of one raw table; none where there
  are none. On Spark it was made at the start of the run.
#}
{% macro raw_scan(table, with_file=false) %}
    {{ return(adapter.dispatch('raw_scan')(table, with_file)) }}
{% endmacro %}

{% macro duckdb__raw_scan(table, with_file) %}
    {% set files = raw_files_of(table, raw_listing()) %}
    {{ return(duckdb_scan(files, with_file) if files else none) }}
{% endmacro %}

{# Its views always have the file. #}
{% macro spark__raw_scan(table, with_file) %}
    {% set view = raw_file_relation(table) %}
    {% set found = run_query(
        'show views in ' ~ view.schema ~ ' like ' ~ sql_text(view.identifier)
    ).rows %}
    {{ return(view if found else none) }}
{% endmacro %}


{% macro raw_scan_columns(scan) %}
    {{ return(
        run_query('describe select * from ' ~ scan).columns[0].values()
        | reject('equalto', path_column()) | list
    ) }}
{% endmacro %}


{# What a scan calls the column with the path of a row's file; no raw column has it. #}
{% macro path_column() %}
    {{ return('path of this file') }}
{% endmacro %}


{# The name of the file that a row is in. #}
{% macro source_file() %}
    {{ return(adapter.dispatch('source_file')()) }}
{% endmacro %}

{% macro duckdb__source_file() %}
    {{ return('parse_filename(' ~ adapter.quote(path_column()) ~ ')') }}
{% endmacro %}

{# Spark names it as an URI does, but a plus is a plus there. #}
{% macro spark__source_file() %}
    {{ return(
        "url_decode(replace(" ~ adapter.quote(path_column()) ~ ", '+', '%2B'))"
    ) }}
{% endmacro %}


{#
  The files in DATA_RAW_PATH and in folders there: [name of the folder or '', name
  of the file, address], in a stable order. Spark's has those of folders within them
  too, which are no raw files.
#}
{% macro raw_listing() %}
    {{ return(adapter.dispatch('raw_listing')()) }}
{% endmacro %}

{% macro duckdb__raw_listing() %}
    {% set folder = file_pattern(setting('data_raw_path').rstrip('/')) %}
    {% set found = run_query(
        "select file, false as is_inside from glob(" ~ sql_text(folder ~ '/*') ~ ") "
        ~ "union all "
        ~ "select file, true as is_inside from glob(" ~ sql_text(folder ~ '/*/*') ~ ") "
        ~ "order by 1"
    ).rows %}
    {% set listing = [] %}
    {% for row in found %}
        {% set parts = row[0].split('/') %}
        {% do listing.append([parts[-2] if row[1] else '', parts[-1], row[0]]) %}
    {% endfor %}
    {{ return(listing) }}
{% endmacro %}

{% macro spark__raw_listing() %}
    {% set folder = spark_path(setting('data_raw_path')) %}
    {% set found = run_query(
        'select path from binaryFile.' ~ adapter.quote(spark_glob(folder))
        ~ " with (recursiveFileLookup = 'true') order by path"
    ).rows %}
    {% set listing = [] %}
    {% for row in found %}
        {% set inside = row[0].split(folder ~ '/')[1:] | join(folder ~ '/') %}
        {% set parts = inside.split('/') %}
        {% do listing.append(
            [parts[:-1] | join('/'), parts[-1], folder ~ '/' ~ inside]
        ) %}
    {% endfor %}
    {{ return(listing) }}
{% endmacro %}


{# The files of one raw table, all of one format: a file beats a folder, and Parquet
   CSV. #}
{% macro raw_files_of(table, listing) %}
    {% for is_inside in [false, true] %}
        {% for extension in ['.parquet', '.csv'] %}
            {% set files = [] %}
            {% for folder, name, address in listing if (folder != '') == is_inside %}
                {% set is_of_table = folder | lower == table | lower
                    if is_inside else name | lower == table | lower ~ extension %}
                {% if is_of_table and (name | lower).endswith(extension) %}
                    {% do files.append(address) %}
                {% endif %}
            {% endfor %}
            {% if files %}{{ return(files) }}{% endif %}
        {% endfor %}
    {% endfor %}
    {{ return([]) }}
{% endmacro %}


{# DuckDB's table function over files of one format; a folder named course=7 is no
   column. #}
{% macro duckdb_scan(files, with_file) %}
    {% set list = duckdb_files(files) %}
    {% set path = ', filename = ' ~ sql_text(path_column()) if with_file else '' %}
    {% if (files[0] | lower).endswith('.csv') %}
        {# Nothing is guessed: text only, an empty value is null. #}
        {{ return(
            'read_csv(' ~ list ~ ", header = true, all_varchar = true, "
            ~ "delim = ',', quote = '\"', escape = '\"', comment = '', skip = 0, "
            ~ "nullstr = '', union_by_name = true, hive_partitioning = false"
            ~ path ~ ')'
        ) }}
    {% endif %}
    {{ return(
        'read_parquet(' ~ list ~ ', union_by_name = true, hive_partitioning = false'
        ~ path ~ ')'
    ) }}
{% endmacro %}


{# The list of files that DuckDB's table functions take. #}
{% macro duckdb_files(files) %}
    {% set literals = [] %}
    {% for file in files %}
        {% do literals.append(sql_text(file_pattern(file))) %}
    {% endfor %}
    {{ return('[' ~ literals | join(', ') ~ ']') }}
{% endmacro %}


{# Text as an SQL literal. #}
{% macro sql_text(text) %}
    {{ return(adapter.dispatch('sql_text')(text)) }}
{% endmacro %}

{% macro default__sql_text(text) %}
    {{ return("'" ~ text | replace("'", "''") ~ "'") }}
{% endmacro %}

{# Spark reads escapes in literals. #}
{% macro spark__sql_text(text) %}
    {{ return(default__sql_text(text | replace('\\', '\\\\'))) }}
{% endmacro %}


{# A path in which *, ? and [ mean themselves. #}
{% macro file_pattern(path) %}
    {{ return(modules.re.sub('([*?[])', '[\\1]', path)) }}
{% endmacro %}
