{#
  How a run after the first one knows what to do again.

  A build records in pipeline_settings how far its data reached. The next one takes
  again what became known within event_lookback_days before that, and everything
  later: facts are held by the day on which they became known, and no feature of a
  day sees what became known on it or later, so nothing older can have changed but
  by facts that say that they were known long ago, or by other students, courses or
  lessons, which decide what of the older facts is accepted. Where a checksum of older
  activity is another than on record, all activity is read again (int_read_from; of
  events in files see event_files.sql); where a checksum of everything else known by
  then differs (enrollments, due times, results, purchases, courses), all features are
  computed again (int_rebuild_from).
  The record then is void until a build has come to its end: one that is cut off may
  have written tables from facts that the next one does not see.

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
    {% set relation = ref('int_read_from') %}
    {% if record_to_add_to() is none or load_relation(relation) is none %}
        {{ return(none) }}
    {% endif %}
    {% set day = run_query('select read_from from ' ~ relation).rows[0][0] | string %}
    {{ return(none if day == '1900-01-01' else day) }}
{% endmacro %}


{# The newest day with facts is the one before data_until. #}
{% macro look_back(data_until) %}
    {{ return(add_days(data_until, '-1 - ' ~ var('event_lookback_days'))) }}
{% endmacro %}


{# A table as this run found it, for a model that it depends on. #}
{% macro table_before(name) %}
    {% if not execute %}{{ return(none) }}{% endif %}
    {% for node in graph.nodes.values()
        if node.resource_type == 'model' and node.name == name %}
        {{ return(api.Relation.create(
            database=node.database, schema=node.schema, identifier=node.alias
        )) }}
    {% endfor %}
{% endmacro %}


{# The row of the last build, from before this one writes its own. #}
{% macro settings_record() %}
    {{ return(adapter.get_relation(
        database=target.database, schema=target.schema, identifier='pipeline_settings'
    )) }}
{% endmacro %}


{# The same where this run may add to what that one made, else none. #}
{% macro record_to_add_to() %}
    {{ return(
        settings_record()
        if execute and builds_incrementally() and not flags.FULL_REFRESH else none
    ) }}
{% endmacro %}


{# Takes a checksum off the record where `day` says that all is done again; a hook
   after the model that holds the day. #}
{% macro void_record(day, checksum) %}
    {% set record = record_to_add_to() %}
    {% if record is none %}{{ return('') }}{% endif %}
    {% set starts = run_query('select ' ~ day ~ ' from ' ~ this).rows[0][0] | string %}
    {% if starts != '1900-01-01' %}{{ return('') }}{% endif %}
    {% if day == 'read_from' %}
        {% set was = run_query('select ' ~ checksum ~ ' from ' ~ record).rows[0][0] %}
        {% do log(
            ('ACTIVITY FROM BEFORE THE LOOK-BACK CHANGED' if was
                else 'THE LAST BUILD WAS NOT WHOLE') ~ ': all of it is read again.',
            info=true
        ) %}
    {% endif %}
    {{ return('update ' ~ record ~ ' set ' ~ checksum ~ ' = null') }}
{% endmacro %}


{# Whether this run makes every table that later ones add to. #}
{% macro builds_whole() %}
    {% if not execute or not builds_incrementally() %}{{ return(false) }}{% endif %}
    {% set left_out = [] %}
    {% for node in graph.nodes.values() if node.resource_type == 'model'
        and node.unique_id not in (selected_resources | default([])) and (
            node.config.materialized == 'incremental'
            or node.name in [
                'int_read_from', 'int_rebuild_from', 'stg_platform__event_files',
                'platform__activity_kinds',
            ]
        ) %}
        {% do left_out.append(node.name) %}
    {% endfor %}
    {{ return(not left_out) }}
{% endmacro %}


{# Removes what an incremental run will add again; a hook before it. What has no time, or
   one in the future, stays where its file is held. #}
{% macro delete_known_again() %}
    {% if not is_incremental() %}{{ return('') }}{% endif %}
    {% set day = known_again_from() %}
    {{ return(
        'delete from ' ~ this ~ (
            " where known_date >= cast('" ~ day ~ "' as date)"
            ~ (' and ' ~ is_in_time('known_date') if holds_event_files()
                else ' or known_date is null')
            if day else ''
        )
    ) }}
{% endmacro %}


{# The same of repeated events: also of an id that was known once before, and of which
   a copy may be gone. None is where every file is held. #}
{% macro delete_repeated_again() %}
    {% if not is_incremental() %}{{ return('') }}{% endif %}
    {% set day = known_again_from() %}
    {% if not day %}{{ return('delete from ' ~ this) }}{% endif %}
    {% if holds_event_files() %}{{ return('') }}{% endif %}
    {% set early = "known_at < cast('" ~ day ~ "' as " ~ dbt.type_timestamp() ~ ')' %}
    {{ return(
        'delete from ' ~ this ~ ' where not coalesce(' ~ early ~ ', false)'
        ~ ' or event_id in (select event_id from ' ~ this ~ ' group by event_id'
        ~ ' having ' ~ count_where(early) ~ ' < 2)'
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
    } %}
    {% if setting('include_attributes') %}
        {% do parts.update({canonical('student_attributes'): [
            'student_id', 'course_run_id', 'attribute', 'value',
        ]}) %}
    {% endif %}
    {# Of those who are there already: others come every day. #}
    {% set begun = ' in (select {column} from ' ~ ref('int_enrollments')
        ~ ' where began_at < ' ~ day ~ ')' %}
    {% set known_from = {
        ref('int_enrollments'): 'began_at',
        ref('int_due_versions'): 'greatest(began_at, coalesce(known_from, began_at))',
        ref('int_sittings'): 'submitted_at',
        canonical('purchases'): 'purchased_at',
    } %}
    {% set early = {} %}
    {% for relation, columns in parts.items() %}
        {% set key = 'student_id' if 'student_id' in columns else 'course_id' %}
        {% set condition = known_from[relation] ~ ' < ' ~ day if relation in known_from
            else key ~ begun.format(column=key) %}
        {% do early.update({relation ~ ' where ' ~ condition: columns}) %}
    {% endfor %}
    {{ return(checksum_of(early)) }}
{% endmacro %}


{# Of rows, whatever their order, as text: {what stands after `from`: columns}. #}
{% macro checksum_of(rows) %}
    {% set sums = [] %}
    {% for source, columns in rows.items() %}
        {% do sums.append(
            '(select coalesce(sum(' ~ row_hash(columns) ~ '), 0) from ' ~ source ~ ')'
        ) %}
    {% endfor %}
    {{ return('cast(' ~ sums | join(' + ') ~ ' as ' ~ dbt.type_string() ~ ')') }}
{% endmacro %}


{#
  A checksum of the activity that was known before `day`; a scalar subquery. Of events
  it has the number of rows of each student and course, and whether these are known:
  it does not see an event whose other values were corrected in place. `held` takes
  them from the tables that hold every event, accepted or rejected, which is the same
  and sooner done than reading them: the tables that this run has made, or (`before`)
  as it found them. Clicks of OULAD count whole, whenever they happened, and whether
  their page is known.
#}
{% macro activity_checksum(day, held='no') %}
    {% set source = setting('source_system') %}
    {% if source in ['sample', 'platform'] %}
        {{ return(platform_activity_checksum(day, held)) }}
    {% endif %}
    {% set groups = [
        'student_id', 'course_id', 'course_run_id', 'event_type', 'is_lesson_start',
    ] %}
    {% set counted = '(select ' ~ groups | join(', ') ~ ', count(*) as facts from '
        ~ canonical('activity')
        ~ (' where known_at < ' ~ day if source != 'oulad' else '')
        ~ ' group by ' ~ groups | join(', ') ~ ') as counted' %}
    {{ return(checksum_of({counted: groups + ['facts']})) }}
{% endmacro %}

{% macro platform_activity_checksum(day, held) %}
    {% if held == 'no' %}
        {% set events = ref('stg_platform__parsed_events') ~ ' where '
            ~ event_known_at() ~ ' < ' ~ day %}
    {% else %}
        {% set daily, rejected = 'int_daily_activity', 'stg_platform__rejected_events' %}
        {% set early = ' where known_date < ' ~ day %}
        {% set events = '(select student_id, course_id, events from '
            ~ (table_before(daily) if held == 'before' else ref(daily))
            ~ early ~ ' and events > 0 union all '
            ~ 'select student_id, course_id, 1 as events from '
            ~ (table_before(rejected) if held == 'before' else ref(rejected))
            ~ early ~ ') as held' %}
    {% endif %}
    {% set groups = '(select student_id, course_id, '
        ~ ('count(*)' if held == 'no' else add_up('events')) ~ ' as events from '
        ~ events ~ ' group by student_id, course_id) as groups'
        ~ join_who_is_known('groups') %}
    {% set early = ' where created_at < ' ~ day %}
    {% set accepted = early ~ ' and rejected_because is null' %}
    {{ return(checksum_of({
        groups: [
            'groups.student_id', 'groups.course_id', 'events', 'students.student_id',
            'courses.course_id',
        ],
        ref('stg_platform__lesson_steps') ~ early: [
            'student_id', 'course_id', 'lesson_id', 'created_at', 'progress_gained',
            'is_lesson_start', 'is_lesson_finish',
        ],
        ref('stg_platform__quiz_question_answers') ~ accepted: [
            'student_id', 'course_id', 'lesson_id', 'created_at', 'verdict', 'attempt',
        ],
        ref('stg_platform__signed_in_events') ~ accepted: ['student_id', 'created_at'],
    })) }}
{% endmacro %}


{# Joins to rows with a student and a course: those of them that are accepted. #}
{% macro join_who_is_known(rows) %}
    {{ return(
        ' left join ' ~ ref('stg_platform__students') ~ ' as students'
        ~ ' on ' ~ rows ~ '.student_id = students.student_id'
        ~ ' and students.rejected_because is null'
        ~ ' left join ' ~ ref('stg_platform__courses') ~ ' as courses'
        ~ ' on ' ~ rows ~ '.course_id = courses.course_id'
        ~ ' and courses.rejected_because is null'
    ) }}
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
