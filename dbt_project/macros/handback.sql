{#
  Creates the tables that Python writes (sources `ml` and `intervene`), empty,
  where they do not exist: a build passes before anything was trained. Runs at
  the start of every run. A table made by an older version gets the columns
  that it lacks; a column of another type is for the user to decide.
#}
{% macro create_handback_tables() %}
    {% if not execute %}{{ return('') }}{% endif %}
    {% set mismatches = [] %}
    {% for node in graph.sources.values() if node.source_name in ['ml', 'intervene'] %}
        {% set relation = api.Relation.create(
            database=node.database, schema=node.schema, identifier=node.identifier
        ) %}
        {% do adapter.create_schema(relation) %}
        {% do create_handback_table(relation, node.columns.values()) %}
        {% do mismatches.extend(update_handback_table(relation, node.columns.values())) %}
    {% endfor %}
    {% if mismatches %}
        {{ exceptions.raise_compiler_error(
            'Tables that an older version made have columns of another type:\n  '
            ~ mismatches | join('\n  ')
            ~ '\nKeep what you need of each (`copy ... to`), drop the table, and run '
            ~ 'again: it is made anew.'
        ) }}
    {% endif %}
    {% do commit_now() %}
{% endmacro %}


{# Looking relations up may have opened a transaction, which dbt rolls back at the
   end of a hook; the statement makes sure that there is one to commit. #}
{% macro commit_now() %}
    {% call statement('commit_now') %}select 1 as done{% endcall %}
    {% do adapter.commit() %}
{% endmacro %}


{% macro create_handback_table(relation, columns) %}
    {% set items = [] %}
    {% for column in columns %}
        {% do items.append(
            adapter.quote(column.name) ~ ' ' ~ contract_type(column.data_type)
        ) %}
    {% endfor %}
    {% do run_query(
        'create table if not exists ' ~ relation ~ ' (' ~ items | join(', ') ~ ')'
        ~ adapter.dispatch('handback_partitions')(relation)
    ) %}
{% endmacro %}


{% macro default__handback_partitions(relation) %}{{ return('') }}{% endmacro %}

{# What Python replaces at once lies together; ml/on_spark/tables.py has the same. #}
{% macro spark__handback_partitions(relation) %}
    {% set columns = {
        'model_runs': none,
        'student_scores': 'run_id, as_of_date',
        'score_reasons': 'run_id, as_of_date',
    }.get(relation.identifier, 'run_id') if relation.schema == 'ml' %}
    {{ return(' partitioned by (' ~ columns ~ ')' if columns else '') }}
{% endmacro %}


{# Adds missing columns and returns what cannot be put right here. #}
{% macro update_handback_table(relation, columns) %}
    {% set found = {} %}
    {% for column in adapter.get_columns_in_relation(relation) %}
        {% do found.update({column.name | lower: column.dtype | lower}) %}
    {% endfor %}
    {% set mismatches = [] %}
    {% for column in columns %}
        {% set type = contract_type(column.data_type) %}
        {% set name = column.name | lower %}
        {% if name not in found %}
            {% do log('Adding column ' ~ name ~ ' to ' ~ relation, info=true) %}
            {% do run_query(
                'alter table ' ~ relation ~ ' add column '
                ~ adapter.quote(column.name) ~ ' ' ~ type
            ) %}
        {% elif found[name] != type %}
            {% do mismatches.append(
                relation ~ '.' ~ name ~ ' is ' ~ found[name] ~ ', expected ' ~ type
            ) %}
        {% endif %}
    {% endfor %}
    {{ return(mismatches) }}
{% endmacro %}


{#
  One warehouse serves one source, and incremental tables hold what the same SQL made
  of the same facts. Where the last build was of another source, or none is on record
  (a build that was cut off), or was made by other SQL or settings, the incremental
  tables are dropped, so that all is read anew; on a change of source every table is,
  so that nobody acts on the other source's flags if this build fails. Runs at the start
  of every run that builds; `dbt test` and `dbt seed` drop nothing.
#}
{% macro drop_outdated_tables() %}
    {% if not execute or flags.WHICH in ['test', 'seed', 'snapshot'] %}
        {{ return('') }}
    {% endif %}
    {# What adds to none of them drops none, such as a look at one mart. #}
    {% set incremental = [] %}
    {% for node in graph.nodes.values() if node.resource_type == 'model'
        and node.config.materialized == 'incremental' %}
        {% do incremental.append(node.unique_id) %}
    {% endfor %}
    {% set adds = flags.WHICH == 'run-operation' or selected_resources | default([])
        | select('in', incremental) | list | length > 0 %}
    {% set record = settings_record() %}
    {% set now = [setting('source_system'), setting('data_raw_path')] %}
    {% set built = last_build_source(record) %}
    {% set source_changed = built is not none and built != now %}
    {% set why = 'SOURCE CHANGED from ' ~ built | join(' ') ~ ' to ' ~ now | join(' ')
        if source_changed else why_outdated(record) if built and adds else '' %}
    {% if built and not why %}{{ return('') }}{% endif %}
    {% if built %}
        {% do log(why ~ ': tables are dropped and built anew.', info=true) %}
        {# So that a run that is cut off after this starts from nothing again. #}
        {% do adapter.drop_relation(record) %}
    {% endif %}
    {% for node in graph.nodes.values() %}
        {% if node.resource_type == 'model'
            and (
                node.config.materialized == 'incremental'
                or source_changed and node.config.materialized == 'table'
            ) %}
            {% do drop_if_exists(node) %}
        {% endif %}
    {% endfor %}
    {% do commit_now() %}
{% endmacro %}


{# Why the incremental tables cannot be added to, or nothing. #}
{% macro why_outdated(record) %}
    {% if not builds_incrementally() %}{{ return('') }}{% endif %}
    {% set columns = adapter.get_columns_in_relation(record)
        | map(attribute='name') | list %}
    {% if 'event_files_checksum' not in columns %}
        {{ return('NO RECORD of what the tables were made by') }}
    {% endif %}
    {% set built = run_query('select build_fingerprint from ' ~ record).rows[0][0] %}
    {{ return('SETTINGS OR MODELS CHANGED' if built != build_fingerprint() else '') }}
{% endmacro %}


{# Source and path of the last build, or none. #}
{% macro last_build_source(record) %}
    {% if record is none %}{{ return(none) }}{% endif %}
    {% set rows = run_query(
        'select source_system, data_raw_path from ' ~ record
    ).rows %}
    {% if rows | length != 1 %}{{ return(none) }}{% endif %}
    {{ return([rows[0][0], rows[0][1] or '']) }}
{% endmacro %}


{% macro drop_if_exists(node) %}
    {% set relation = adapter.get_relation(
        database=node.database, schema=node.schema, identifier=node.alias
    ) %}
    {% if relation is not none %}
        {% do log('Dropping ' ~ relation, info=true) %}
        {% do adapter.drop_relation(relation) %}
    {% endif %}
{% endmacro %}
