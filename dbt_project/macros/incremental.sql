{#
  How a run after the first one knows what to do again.

  A build records in pipeline_settings how far its data reached. The next one takes
  again what became known within event_lookback_days before that, and everything
  later: facts are held by the day on which they became known, and no feature of a
  day sees what became known on it or later, so nothing older can have changed but
  by facts that say that they were known long ago. Where the number of rows of
  activity known by then is another than on record, all activity is read again; where
  a checksum of everything else known by then differs (enrollments, due times,
  results, purchases, courses), all features are computed again.

  Engines without transactions build whole tables every time.
#}


{# Whether this engine replaces rows of a table in one transaction. #}
{% macro builds_incrementally() %}
    {{ return(adapter.dispatch('builds_incrementally')()) }}
{% endmacro %}

{% macro default__builds_incrementally() %}{{ return(false) }}{% endmacro %}
{% macro duckdb__builds_incrementally() %}{{ return(true) }}{% endmacro %}


{#
  The day from which on facts are read again, as text, or none: then all are. Facts
  known before it are in the tables already.
#}
{% macro known_again_from() %}
    {% if not execute or flags.FULL_REFRESH or not builds_incrementally() %}
        {{ return(none) }}
    {% endif %}
    {% set record = settings_record() %}
    {% if record is none %}{{ return(none) }}{% endif %}
    {% set found = run_query(
        'select ' ~ look_back('data_until') ~ ' as day from ' ~ record
    ).rows %}
    {{ return(found[0][0] | string if found and found[0][0] else none) }}
{% endmacro %}


{# The newest day with facts is the one before data_until. #}
{% macro look_back(data_until) %}
    {{ return(add_days(data_until, '-1 - ' ~ var('event_lookback_days'))) }}
{% endmacro %}


{# The row of the last build, from before this one writes its own. #}
{% macro settings_record() %}
    {{ return(adapter.get_relation(
        database=target.database, schema=target.schema, identifier='pipeline_settings'
    )) }}
{% endmacro %}


{# Removes what an incremental run will add again; a hook before it. #}
{% macro delete_known_again() %}
    {% if not is_incremental() %}{{ return('') }}{% endif %}
    {{ return(
        "delete from " ~ this ~ " where known_date >= cast('" ~ known_again_from()
        ~ "' as date) or known_date is null"
    ) }}
{% endmacro %}


{# The same where int_rebuild_from says what is added again; a hook too. #}
{% macro delete_rebuilt(relation) %}
    {% if not is_incremental() %}{{ return('') }}{% endif %}
    {{ return(
        'delete from ' ~ relation ~ ' where known_date >= (select rebuild_from from '
        ~ ref('int_rebuild_from') ~ ')'
    ) }}
{% endmacro %}


{# Removes features that this run computes again, and those of points that are no
   more: a day that is not scored any longer, a student who was forgotten. #}
{% macro delete_rebuilt_points(relation) %}
    {% if not is_incremental() %}{{ return('') }}{% endif %}
    {{ return(
        'delete from ' ~ relation ~ ' where as_of_date > (select rebuild_from from '
        ~ ref('int_rebuild_from') ~ ') or not exists (select 1 from '
        ~ ref('int_prediction_points') ~ ' as points where points.student_id = '
        ~ relation ~ '.student_id and points.course_id = ' ~ relation
        ~ '.course_id and points.assessment_id = ' ~ relation
        ~ '.assessment_id and points.as_of_date = ' ~ relation ~ '.as_of_date)'
    ) }}
{% endmacro %}


{#
  What the incremental tables were made by: settings, vars and the SQL of the models.
  Where the last build had another, they are made anew.
#}
{% macro build_fingerprint() %}
    {% if not execute %}{{ return('') }}{% endif %}
    {% set parts = [] %}
    {% for name in [
        'target_definition', 'observation_window_days', 'prediction_leads',
        'include_attributes',
    ] %}
        {% do parts.append(name ~ '=' ~ setting(name)) %}
    {% endfor %}
    {% for name in [
        'target_kinds', 'grace_days', 'grading_delay_days',
        'repurchase_horizon_days', 'min_peers', 'student_attributes',
        'minutes_event_types', 'lesson_progresses_append_only',
        'event_lookback_days',
    ] %}
        {% do parts.append(name ~ '=' ~ var(name)) %}
    {% endfor %}
    {% for node in graph.nodes.values() | sort(attribute='unique_id')
        if node.resource_type == 'model' and node.fqn[1] in ['staging', 'intermediate']
        or node.name == 'student_features_14d' %}
        {% do parts.append(node.name ~ '=' ~ node.checksum.checksum) %}
    {% endfor %}
    {% do parts.append(macro_files_fingerprint()) %}
    {{ return(local_md5(parts | join('\n'))) }}
{% endmacro %}


{# dbt tells the checksum of a model, but not of the macros in it. Nothing where it
   does not run in the project's folder. #}
{% macro macro_files_fingerprint() %}
    {{ return(adapter.dispatch('macro_files_fingerprint')()) }}
{% endmacro %}

{# Nothing there outlives a build. #}
{% macro default__macro_files_fingerprint() %}{{ return('') }}{% endmacro %}

{% macro duckdb__macro_files_fingerprint() %}
    {% set pattern = "'dbt_project/macros/*.sql'" %}
    {% if run_query('select count(*) from glob(' ~ pattern ~ ')').rows[0][0] == 0 %}
        {{ return('') }}
    {% endif %}
    {{ return(run_query(
        "select md5(string_agg(content, '' order by filename)) from read_text("
        ~ pattern ~ ')'
    ).rows[0][0]) }}
{% endmacro %}


{#
  A checksum of everything but activity that was known before `day`, which the
  features may have used; a scalar subquery. Later facts do not change it.
#}
{% macro known_facts_checksum(day) %}
    {% set parts = {
        ref('int_enrollments'): [
            'student_id', 'course_id', 'course_run_id', 'peer_group_id',
            'activity_scope_id', 'run_started_at', 'began_at', 'valid_to',
            'attempt_number', known_by('withdrawn_at', day),
            known_by('next_began_at', day),
        ],
        ref('int_due_versions'): [
            'student_id', 'course_run_id', 'assessment_id', 'kind', 'weight',
            'pass_mark', 'assessment_position', 'issue_due_at', 'due_at',
            'known_from', known_by('known_until', day),
            known_by('carried_over_at', day),
        ],
        ref('int_sittings'): [
            'student_id', 'course_run_id', 'assessment_id',
            'submitted_at', known_by('graded_at', day),
            'case when graded_at < ' ~ day ~ ' then score end',
            'case when graded_at < ' ~ day ~ ' then passed end',
        ],
        canonical('purchases'): [
            'purchase_id', 'student_id', 'course_id', 'purchased_at',
        ],
        canonical('courses'): ['course_id', 'category'],
        canonical('lessons'): ['course_id', 'course_run_id', 'lesson_id'],
        canonical('student_attributes'): [
            'student_id', 'course_run_id', 'attribute', 'value',
        ],
    } %}
    {% set known_from = {
        ref('int_enrollments'): 'began_at',
        ref('int_due_versions'): 'greatest(began_at, coalesce(known_from, began_at))',
        ref('int_sittings'): 'submitted_at',
        canonical('purchases'): 'purchased_at',
    } %}
    {% set sums = [] %}
    {% for relation, columns in parts.items() %}
        {% do sums.append(
            '(select coalesce(sum(' ~ row_hash(columns) ~ '), 0) from ' ~ relation
            ~ (' where ' ~ known_from[relation] ~ ' < ' ~ day
                if relation in known_from else '')
            ~ ')'
        ) %}
    {% endfor %}
    {{ return('cast(' ~ sums | join(' + ') ~ ' as ' ~ dbt.type_string() ~ ')') }}
{% endmacro %}


{#
  How many raw rows of activity were known before `day`; a scalar subquery. A table
  without times of its own counts whole: any other row makes all be read again.
#}
{% macro activity_rows_before(day) %}
    {% set source = setting('source_system') %}
    {% set created_at = parse_timestamp('created_at') %}
    {% if source == 'oulad' %}
        {% set tables = {'studentVle': none} %}
    {% elif source in ['sample', 'platform'] %}
        {% set source = 'platform' %}
        {% set tables = {
            'activity_events': event_known_at(
                parse_timestamp('occurred_at'), parse_timestamp('loaded_at')
            ),
            'lesson_progresses': created_at,
            'quiz_question_answers': created_at,
            'signed_in_events': created_at,
        } %}
    {% else %}
        {{ return(
            '(select count(*) from ' ~ canonical('activity')
            ~ ' where known_at < ' ~ day ~ ')'
        ) }}
    {% endif %}
    {% set counts = [] %}
    {% for table, known_at in tables.items() %}
        {% do counts.append(
            '(select count(*) from ' ~ raw_table(source, table, and_forgotten=true)
            ~ ' as raw' ~ (' where ' ~ known_at ~ ' < ' ~ day if known_at else '') ~ ')'
        ) %}
    {% endfor %}
    {{ return(counts | join(' + ')) }}
{% endmacro %}


{# A time that counts only if it was over by then. #}
{% macro known_by(column, day) %}
    {{ return('case when ' ~ column ~ ' < ' ~ day ~ ' then ' ~ column ~ ' end') }}
{% endmacro %}


{# A whole number that differs where any value does; never compared across engines. #}
{% macro row_hash(columns) %}
    {{ return(adapter.dispatch('row_hash')(columns)) }}
{% endmacro %}

{% macro default__row_hash(columns) %}
    {{ return('cast(xxhash64(' ~ columns | join(', ') ~ ') as decimal(38, 0))') }}
{% endmacro %}

{% macro duckdb__row_hash(columns) %}
    {{ return('hash(' ~ columns | join(', ') ~ ')') }}
{% endmacro %}
