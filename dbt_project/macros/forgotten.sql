{#
  Students who asked to be forgotten (`python -m intervene forget`) are left out
  where raw data is read, raw_table(), so that no model has to think of them. A
  folder beside the warehouse, or FORGOTTEN_PATH, holds a key and keyed hashes of
  their ids; ml/forgotten.py writes it. Key and hashes are read when the query
  runs: neither is in compiled SQL, and a view leaves a student out at once.
#}


{# Columns of raw tables that hold a student's id; ml/forgotten.py has the same. #}
{% macro student_columns() %}
    {{ return(['student_id', 'id_student']) }}
{% endmacro %}


{#
  A condition on rows of `scan`: their student was not forgotten. Hashing every row
  is what costs: with an empty list DuckDB hashes none; otherwise each id is hashed
  once.
#}
{% macro not_forgotten(scan, column) %}
    {% set id = 'coalesce(' ~ blank_to_null(column) ~ ", '')" %}
    {% if not somebody_is_forgotten() %}
        {{ return(forgotten_hash(id) ~ ' not in (' ~ forgotten_hashes() ~ ')') }}
    {% endif %}
    {{ return(
        id ~ ' not in (select ids.id from (select distinct ' ~ id ~ ' as id from '
        ~ scan ~ ') as ids where ' ~ is_forgotten('ids.id') ~ ')'
    ) }}
{% endmacro %}


{# Whether the student with this id was forgotten. #}
{% macro is_forgotten(id) %}
    {{ return(forgotten_hash(id) ~ ' in (' ~ forgotten_hashes() ~ ')') }}
{% endmacro %}


{% macro forgotten_hash(id) %}
    {% set key = '(' ~ forgotten_key() ~ ')' %}
    {% set named = sql_text(setting('source_system') ~ ' ') ~ ' || ' ~ id %}
    {{ return(sha256_hex(
        key ~ ' || ' ~ sha256_hex(key ~ ' || ' ~ named)
    )) }}
{% endmacro %}


{% macro somebody_is_forgotten() %}
    {% set found = run_query(
        'select count(*) as hashes from (' ~ forgotten_hashes() ~ ') as listed'
    ) %}
    {{ return(found.rows[0][0] > 0) }}
{% endmacro %}


{# How many rows of a raw table belong to students who were forgotten; an aggregate
   for a select from all its rows. Nothing is read again where nobody was. #}
{% macro count_forgotten(source_name, table) %}
    {% if not execute or not somebody_is_forgotten() %}
        {{ return('cast(0 as ' ~ dbt.type_bigint() ~ ')') }}
    {% endif %}
    {{ return(
        'count(*) - (select count(*) from ' ~ raw_table(source_name, table)
        ~ ' as kept)'
    ) }}
{% endmacro %}


{#
  For a table that outlives a build: removes the rows of students who were forgotten
  since. A hook; renders nothing where the table does not exist or has no student.
  `is_there`: it was made a moment ago, and dbt does not know of it yet.
#}
{% macro delete_forgotten(relation, is_there=false) %}
    {% if not execute or not (is_there or load_relation(relation)) %}
        {{ return('') }}
    {% endif %}
    {% for column in adapter.get_columns_in_relation(relation) %}
        {% if column.name | lower in student_columns() and somebody_is_forgotten() %}
            {{ return(delete_rows_but(
                relation, not_forgotten(relation, adapter.quote(column.name))
            )) }}
        {% endif %}
    {% endfor %}
    {{ return('') }}
{% endmacro %}


{# ---------- what engines say differently #}

{# A statement that leaves a table with those rows for which the condition is true. #}
{% macro delete_rows_but(relation, condition) %}
    {{ return(adapter.dispatch('delete_rows_but')(relation, condition)) }}
{% endmacro %}

{% macro default__delete_rows_but(relation, condition) %}
    {{ return('delete from ' ~ relation ~ ' where not (' ~ condition ~ ')') }}
{% endmacro %}

{# Parquet files are written, not changed, and not while they are read. #}
{% macro spark__delete_rows_but(relation, condition) %}
    {% set kept = relation.incorporate(
        path={'identifier': relation.identifier ~ '__kept'}
    ) %}
    {% do run_query('drop table if exists ' ~ kept) %}
    {% do run_query(
        'create table ' ~ kept ~ ' as select * from ' ~ relation ~ ' where ' ~ condition
    ) %}
    {% do run_query('insert overwrite ' ~ relation ~ ' select * from ' ~ kept) %}
    {% do run_query('drop table ' ~ kept) %}
    {{ return('') }}
{% endmacro %}


{% macro sha256_hex(text) %}
    {{ return(adapter.dispatch('sha256_hex')(text)) }}
{% endmacro %}

{% macro default__sha256_hex(text) %}
    {{ return('sha2(' ~ text ~ ', 256)') }}
{% endmacro %}

{% macro duckdb__sha256_hex(text) %}
    {{ return('sha256(' ~ text ~ ')') }}
{% endmacro %}


{# The folder, which is made with a new key where there is none. #}
{% macro forgotten_folder() %}
    {% set beside = env_var('WAREHOUSE_PATH', 'data/warehouse.duckdb')
        .replace('\\', '/').split('/')[:-1] + ['forgotten'] %}
    {% set folder = setting('forgotten_path') or beside | join('/') %}
    {{ return(adapter.dispatch('forgotten_folder')(folder)) }}
{% endmacro %}

{# Other engines: `python -m intervene forget` makes it; without it nobody was. #}
{% macro default__forgotten_folder(folder) %}
    {{ return(folder) }}
{% endmacro %}

{# ml/preflight.py is loaded as a plugin. #}
{% macro duckdb__forgotten_folder(folder) %}
    {% if not execute %}{{ return(folder) }}{% endif %}
    {{ return(
        run_query('select forgotten_folder(' ~ sql_text(folder) ~ ')').rows[0][0]
    ) }}
{% endmacro %}


{#
  Spark reads both files through tables, which may point at nothing: then nobody was
  forgotten. Made at the start of a run, and read anew by every query after that.
#}
{% macro register_forgotten() %}
    {% set folder = spark_path(forgotten_folder()) %}
    {% for table, file in {
        'forgotten_key': 'key', 'forgotten_students': 'students.csv'
    }.items() %}
        {% do run_query('drop table if exists raw_files.' ~ table) %}
        {% do run_query(
            'create table raw_files.' ~ table ~ ' (value string) using text options ('
            ~ "'__globPaths__' 'false') location " ~ sql_text(folder ~ '/' ~ file)
        ) %}
    {% endfor %}
    {% set key = run_query(forgotten_key()).rows[0][0] or '' %}
    {% if somebody_is_forgotten()
        and not modules.re.fullmatch('[0-9a-f]{64}', key) %}
        {{ exceptions.raise_compiler_error(
            folder ~ '/key is missing or damaged, and without it nobody knows whom '
            ~ 'students.csv beside it means. Restore it from a backup; until then '
            ~ 'nothing is built.'
        ) }}
    {% endif %}
{% endmacro %}


{% macro forgotten_key() %}
    {{ return(adapter.dispatch('forgotten_key')(forgotten_folder())) }}
{% endmacro %}

{# A table over the file; `max`, so that it is one value whatever is in it. #}
{% macro spark__forgotten_key(folder) %}
    {{ return('select max(substr(value, 1, 64)) from raw_files.forgotten_key') }}
{% endmacro %}

{% macro duckdb__forgotten_key(folder) %}
    {{ return(
        'select substr(content, 1, 64) from read_text('
        ~ sql_text(file_pattern(folder ~ '/key')) ~ ')'
    ) }}
{% endmacro %}


{% macro forgotten_hashes() %}
    {{ return(adapter.dispatch('forgotten_hashes')(forgotten_folder())) }}
{% endmacro %}

{# The header is the hash of nobody. #}
{% macro spark__forgotten_hashes(folder) %}
    {{ return(
        'select value as student_hash from raw_files.forgotten_students '
        ~ "where value <> 'student_hash'"
    ) }}
{% endmacro %}

{% macro duckdb__forgotten_hashes(folder) %}
    {{ return(
        'select student_hash from read_csv('
        ~ sql_text(file_pattern(folder ~ '/students.csv'))
        ~ ", header = true, auto_detect = false, delim = ',', "
        ~ "columns = {'student_hash': 'varchar'})"
    ) }}
{% endmacro %}
