{# The instant at which a day of a presentation begins; days count from its start. #}
{% macro oulad_day_start(day) -%}
    cast(
        {{ dbt.dateadd('day', day, 'run_started_at') }}
        as {{ dbt.type_timestamp() }}
    )
{%- endmacro %}


{# Ten years around the start: anything else is a mistake. #}
{% macro reject_bad_oulad_day(column) %}
    {{ reject_bad_number(column, -3650, 3650) }}
{% endmacro %}


{# Raw tables and the ids by which a rejected row of each is told. #}
{% macro oulad_tables() %}
    {{ return({
        'courses': ['code_module', 'code_presentation'],
        'assessments': ['code_module', 'code_presentation', 'id_assessment'],
        'studentInfo': ['code_module', 'code_presentation', 'id_student'],
        'studentRegistration': [
            'code_module', 'code_presentation', 'id_student',
        ],
        'studentAssessment': ['id_assessment', 'id_student'],
        'vle': ['code_module', 'code_presentation', 'id_site'],
        'studentVle': [
            'code_module', 'code_presentation', 'id_student', 'id_site',
        ],
    }) }}
{% endmacro %}


{# The clean model of a raw table. #}
{% macro oulad_clean(table) %}
    {{ return(ref('stg_oulad__' ~ {
        'courses': 'courses',
        'assessments': 'assessments',
        'studentInfo': 'student_info',
        'studentRegistration': 'student_registration',
        'studentAssessment': 'student_assessment',
        'vle': 'vle',
        'studentVle': 'student_vle',
    }[table])) }}
{% endmacro %}
