{#
  The files of activity_events, so that a run need not read again what it has read.

  stg_platform__event_files holds their names, sizes and times. Where every file of the
  last build is still there as it was, the tables hold what is in these files, and of
  them a run reads those only that have events from the look-back on; of the others it
  reads the ids, to find copies. Where one is gone or has changed, or where rows are not
  in files, every event is looked at, as int_read_from says.
#}


{# [name, bytes, time of the last change as text] of each; none where rows are in a
   table, or where names do not tell files apart. #}
{% macro list_event_files() %}
    {% if not execute or not raw_is_in_files() %}{{ return([]) }}{% endif %}
    {% set files = raw_files_of('activity_events', raw_listing()) %}
    {# Those whose names differ in case only are read together. #}
    {% set folders = [] %}
    {% for file in files %}
        {% do folders.append(file.split('/')[:-1] | join('/')) %}
    {% endfor %}
    {% if folders | unique | list | length != 1 %}{{ return([]) }}{% endif %}
    {{ return(adapter.dispatch('describe_files')(files)) }}
{% endmacro %}

{# No column of contents is asked for, so none is read. #}
{% macro duckdb__describe_files(files) %}
    {% set found = run_query(
        'select parse_filename(filename), cast(size as varchar), '
        ~ "strftime(last_modified, '%Y-%m-%d %H:%M:%S') from read_blob("
        ~ duckdb_files(files) ~ ') order by 1'
    ).rows %}
    {{ return(found | map('list') | list) }}
{% endmacro %}

{% macro spark__describe_files(files) %}
    {% set folder = files[0].split('/')[:-1] | join('/') ~ '/' %}
    {% set found = run_query(
        'select path, cast(length as string), '
        ~ "date_format(modificationTime, 'yyyy-MM-dd HH:mm:ss') from binaryFile."
        ~ adapter.quote(spark_glob(folder))
        ~ " with (recursiveFileLookup = 'true') order by path"
    ).rows %}
    {% set described = [] %}
    {% for path, bytes, time in found %}
        {% set name = path.split(folder)[1:] | join(folder) %}
        {% if folder ~ name in files %}
            {% do described.append([name, bytes, time]) %}
        {% endif %}
    {% endfor %}
    {{ return(described) }}
{% endmacro %}


{# Rows of a list of them. #}
{% macro event_file_rows(files) %}
    {% set rows = [] %}
    {% for name, bytes, time in files %}
        {% do rows.append('(' ~ sql_text(name) ~ ', ' ~ bytes ~ ", '" ~ time ~ "')") %}
    {% endfor %}
    {% set columns = ' as listed (source_file, bytes, modified_at)' %}
    {{ return(
        '(values ' ~ rows | join(', ') ~ ')' ~ columns if rows
        else "(select '' as source_file, 0 as bytes, '1900-01-01' as modified_at"
            ~ ' where 1 = 0) as listed'
    ) }}
{% endmacro %}


{# Names of the files whose events the tables hold as they are: all of the last build's,
   or none. To be asked before stg_platform__event_files is made anew. #}
{% macro held_event_files(files) %}
    {% set record, before = record_to_add_to(), table_before('stg_platform__event_files') %}
    {% set checksum = event_files_checksum(
        '(select data_until from ' ~ record ~ ')', is_before=true
    ) %}
    {% for table in [
        before, table_before('stg_platform__rejected_events'),
        table_before('int_daily_activity'),
    ] %}
        {% if record is none or load_relation(table) is none %}{{ return([]) }}{% endif %}
    {% endfor %}
    {% set vouched = run_query(
        'select event_files_checksum = ' ~ checksum ~ ' from ' ~ record
    ).rows[0][0] %}
    {% set now = files | map('join', ' ') | list %}
    {% set held = [] %}
    {% for row in run_query(
        'select source_file, cast(bytes as varchar), '
        ~ "strftime(modified_at, '%Y-%m-%d %H:%M:%S') from " ~ before
    ).rows if vouched %}
        {% if row | join(' ') not in now %}{{ return([]) }}{% endif %}
        {% do held.append(row[0]) %}
    {% endfor %}
    {{ return(held) }}
{% endmacro %}


{# Until a build has come to its end the record vouches for no file: one that is cut off
   may have written some of the tables from files that are others now. A hook. #}
{% macro void_event_files() %}
    {% set record = record_to_add_to() %}
    {{ return(
        'update ' ~ record ~ ' set event_files_checksum = null' if record else ''
    ) }}
{% endmacro %}


{# Of these, the ones of which nothing has come into its time since. #}
{% macro settled_event_files() %}
    {{ return(event_files_where(
        'coalesce(not ' ~ is_in_time('next_known_at') ~ ', true)',
        table_before('stg_platform__event_files')
    )) }}
{% endmacro %}


{#
  What the next build compares to know that stg_platform__event_files says what the
  tables hold. It is null where a file is so new that it may change once more within
  the same second, which is as exactly as times of files are told. With the files go the
  types that DuckDB gives their columns, who was forgotten, and who is known of the
  events without a time before data_until: of these alone int_read_from does not look
  whether they are still rejected for the same reason.
#}
{% macro event_files_checksum(data_until, is_before=false) %}
    {% if is_before %}
        {% set files = table_before('stg_platform__event_files') %}
        {% set rejected = table_before('stg_platform__rejected_events') %}
    {% else %}
        {% set files = ref('stg_platform__event_files') %}
        {% set rejected = ref('stg_platform__rejected_events') %}
    {% endif %}
    {% set types = local_md5(event_columns() | join(', ')) %}
    {% set untimed = rejected ~ ' as rejected' ~ join_who_is_known('rejected')
        ~ ' where coalesce(rejected.known_date >= ' ~ data_until ~ ', true)' %}
    {% set second = modules.datetime.timedelta(seconds=1) %}
    {% set latest = (run_started_at.astimezone(modules.pytz.utc) - second)
        .strftime('%Y-%m-%d %H:%M:%S') %}
    {% set checksum = checksum_of({
        files: ['source_file', 'bytes', 'modified_at', "'" ~ types ~ "'"],
        untimed: [
            'rejected.record_key', 'students.student_id', 'courses.course_id',
        ],
        '(' ~ forgotten_hashes() ~ ') as forgotten': ['forgotten.student_hash'],
    }) %}
    {{ return(
        'case when (select max(modified_at) from ' ~ files ~ ") < cast('" ~ latest
        ~ "' as " ~ dbt.type_timestamp() ~ ') then ' ~ checksum ~ ' end'
    ) }}
{% endmacro %}


{# Names and types of the columns that the files have together. #}
{% macro event_columns() %}
    {% set scan = raw_scan('activity_events') if execute and raw_is_in_files() else none %}
    {% set columns = [] %}
    {% for row in (run_query('describe select * from ' ~ scan).rows if scan else []) %}
        {% do columns.append(row[0] ~ ' ' ~ row[1]) %}
    {% endfor %}
    {{ return(columns) }}
{% endmacro %}


{# Whether the source has events at all. #}
{% macro reads_event_files() %}
    {{ return(setting('source_system') in ['sample', 'platform']) }}
{% endmacro %}


{# Whether the tables hold what was in some of the files; a run that does not look at
   the files cannot know. #}
{% macro holds_event_files() %}
    {% if not reads_event_files() %}{{ return(false) }}{% endif %}
    {% set files = ref('stg_platform__event_files') %}
    {% set looks = 'model.' ~ project_name ~ '.stg_platform__event_files'
        in (selected_resources | default([])) %}
    {% if not execute or not looks or not builds_incrementally() %}
        {{ return(false) }}
    {% endif %}
    {{ return(run_query(
        'select count(*) from ' ~ files ~ ' where not is_new'
    ).rows[0][0] > 0) }}
{% endmacro %}


{# A condition: the event is in a file that may have what became known from `since`
   on. One on names alone, so that DuckDB reads nothing of the others. #}
{% macro in_file_to_read(since) %}
    {% if not holds_event_files() or not since %}{{ return('1 = 1') }}{% endif %}
    {% set early = "last_known_at < cast('" ~ since ~ "' as "
        ~ dbt.type_timestamp() ~ ')' %}
    {{ return('not ' ~ is_one_of(event_files_where(
        'not is_new and coalesce(' ~ early ~ ', true) and coalesce(not '
        ~ is_in_time('next_known_at') ~ ', true)'
    ))) }}
{% endmacro %}


{# Names of the files that meet a condition. #}
{% macro event_files_where(condition, files=none) %}
    {% set files = files or ref('stg_platform__event_files') %}
    {{ return(run_query(
        'select source_file from ' ~ files ~ ' where ' ~ condition
        ~ ' order by source_file'
    ).columns[0].values() | list) }}
{% endmacro %}


{# A condition: a file is one of these. #}
{% macro is_one_of(names, column='source_file') %}
    {% set literals = [] %}
    {% for name in names %}{% do literals.append(sql_text(name)) %}{% endfor %}
    {{ return(
        '(' ~ column ~ ' in (' ~ literals | join(', ') ~ '))' if names else '(1 = 0)'
    ) }}
{% endmacro %}


{# A condition: the event is in a file that the last build did not know. #}
{% macro in_new_file() %}
    {% if not holds_event_files() %}{{ return('1 = 1') }}{% endif %}
    {{ return(is_one_of(event_files_where('is_new'))) }}
{% endmacro %}


{# A condition: no such file has an event that was known before `day`. #}
{% macro no_new_file_has_older(day) %}
    {% if not holds_event_files() %}{{ return('1 = 1') }}{% endif %}
    {{ return(
        'not exists (select 1 from ' ~ ref('stg_platform__parsed_events') ~ ' where '
        ~ in_new_file() ~ ' and ' ~ event_known_at() ~ ' < ' ~ day ~ ')'
    ) }}
{% endmacro %}


{#
  A condition on an event that a run after the first one looks at again: it became known
  from `since` on, or has no time that can be, in a file that the tables do not hold. In
  parts that all must hold: DuckDB looks at the time, then, before it joins anything.
#}
{% macro is_known_again(known_at, since) %}
    {% set again = known_at ~ " >= cast('" ~ since ~ "' as " ~ dbt.type_timestamp() ~ ')' %}
    {{ return(
        '(' ~ in_file_to_read(since) ~ ' and coalesce(' ~ again ~ ', true) and (coalesce('
        ~ is_in_time(known_at) ~ ', false) or ' ~ in_new_file() ~ '))'
    ) }}
{% endmacro %}


{# A condition on a time when something became known: by now it can have. In whole days,
   as tables hold them. #}
{% macro is_in_time(known_at) %}
    {{ return(
        '(cast(' ~ known_at ~ ' as date) <= cast(' ~ latest_plausible_time()
        ~ ' as date))'
    ) }}
{% endmacro %}
