-- How does the student study: in what rhythm, on which days, at what time? All from
-- the days with study before as_of_date that were known by then.

with

observations as (

    select * from {{ ref('int_observations') }}

),

coverage as (

    select * from {{ ref('int_activity_coverage') }}

),

active_days as (

    select
        student_id,
        course_run_id,
        as_of_date,
        activity_date,
        timed_facts,
        evening_facts,
        {{ weekday('activity_date') }} as weekday,
        lag(activity_date) over (
            partition by student_id, course_run_id, as_of_date
            order by activity_date
        ) as previous_date,
        row_number() over (
            partition by student_id, course_run_id, as_of_date
            order by activity_date
        ) as day_number
    from {{ ref('int_observed_activity') }}
    where study_facts > 0

),

-- Days running have the same distance to their number.
numbered as (

    select
        *,
        {{ dbt.datediff(
            'as_of_date', 'activity_date', 'day'
        ) }} - day_number as streak_id,
        {{ dbt.datediff(
            'previous_date', 'activity_date', 'day'
        ) }} - 1 as pause_before
    from active_days

),

streaks as (

    select
        student_id,
        course_run_id,
        as_of_date,
        streak_id,
        count(*) as days,
        {{ dbt.datediff(
            'max(activity_date)', 'as_of_date', 'day'
        ) }} - 1 as pause_after,
        max(pause_before) as pause_before,
        {% for number in range(7) %}
        {{ count_where('weekday = ' ~ number) }} as weekday_{{ number }},
        {% endfor %}
        sum(timed_facts) as timed_facts,
        sum(evening_facts) as evening_facts
    from numbered
    group by
        student_id,
        course_run_id,
        as_of_date,
        streak_id

),

totals as (

    select
        student_id,
        course_run_id,
        as_of_date,
        sum(days) as active_days,
        max(days) as longest_streak,
        max(case when pause_after = 0 then days end) as current_streak,
        -- Before each streak but the first, and after the last.
        greatest(coalesce(max(pause_before), 0), min(pause_after))
            as longest_gap,
        {% for number in range(7) %}
        sum(weekday_{{ number }}) as weekday_{{ number }},
        {% endfor %}
        sum(timed_facts) as timed_facts,
        sum(evening_facts) as evening_facts
    from streaks
    group by
        student_id,
        course_run_id,
        as_of_date

),

-- How concentrated study is on fixed weekdays: of all pairs of active days, those
-- that share theirs (the unbiased estimator of Simpson, "Measurement of Diversity",
-- Nature 163, 1949). The largest share of a weekday would fall with every day more.
sums as (

    select
        *,
        {% for number in range(7) -%}
        {%- if not loop.first %} + {% endif -%}
        weekday_{{ number }} * (weekday_{{ number }} - 1)
        {%- endfor %} as same_weekday_pairs,
        active_days * (active_days - 1) as pairs
    from totals

),

features as (

    select
        observations.student_id,
        observations.course_run_id,
        observations.as_of_date,
        {{ if_recorded('sums.longest_streak', 'study') }}
            as habit_longest_streak_days,
        {{ if_recorded('sums.current_streak', 'study') }}
            as habit_current_streak_days,
        {{ as_number('sums.longest_gap') }} as habit_longest_gap_days,
        {{ ratio('sums.weekday_5 + sums.weekday_6', 'sums.active_days') }}
            as habit_weekend_share,
        {{ ratio('sums.evening_facts', 'sums.timed_facts') }}
            as habit_evening_share,
        {{ ratio('sums.same_weekday_pairs', 'sums.pairs') }}
            as habit_weekday_regularity
    from observations
    left join sums
        on
            observations.student_id = sums.student_id
            and observations.course_run_id = sums.course_run_id
            and observations.as_of_date = sums.as_of_date
    left join coverage
        on observations.activity_scope_id = coverage.activity_scope_id

)

select * from features
