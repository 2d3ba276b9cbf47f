with

accepted as (

    select * from {{ ref('stg_oulad__assessments') }}
    where rejected_because is null

),

numbered as (

    select
        *,
        row_number() over (
            partition by course_run_id, assessment_type
            order by due_at, id_assessment
        ) as number_in_run
    from accepted

),

assessments as (

    select
        id_assessment as assessment_id,
        code_module as course_id,
        course_run_id,
        assessment_type
        || ' '
        || cast(number_in_run as {{ dbt.type_string() }}) as title,
        kind,
        due_at,
        weight,
        cast(40 as double) as pass_mark
    from numbered

)

select * from assessments
