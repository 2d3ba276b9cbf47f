with

results as (

    select
        result_id,
        student_id,
        assessment_id,
        submitted_at,
        score,
        passed,
        -- No score is known before the work was handed in.
        case
            when graded_at is not null
                then greatest(graded_at, submitted_at)
        end as score_known_at,
        false as is_carried_over
    from {{ ref('stg_platform__assessment_results') }}
    where rejected_because is null

)

select * from results
