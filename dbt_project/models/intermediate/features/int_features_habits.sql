-- How does the student study: in what rhythm, on which days, at what time? All from
-- the days with study before as_of_date that were known by then.

with

observations as (

    select * from {{ ref('int_observations') }}

),

coverage as (

    select * from {{ ref('int_activity_coverage') }}

),

sums as (

    select * from {{ ref('int_observed_sums') }}

),

study_days as (

    select
        enrollment_number,
        activity_date,
        known_date
    from {{ ref('int_observed_activity') }}
    where is_new_study_day = 1

),

-- Observations that know of a day with study, and not yet of one before it. Everybody
-- else sees what became of an enrollment up to the last day that is known, also where
-- every day becomes known a day or a week later.
late_views as (

    select distinct
        observations.enrollment_number,
        observations.as_of_date
    from observations
    inner join sums
        on
            observations.enrollment_number = sums.enrollment_number
            and observations.as_of_date = sums.as_of_date
    inner join study_days
        on
            observations.enrollment_number = study_days.enrollment_number
            and sums.last_date > study_days.activity_date
            and observations.as_of_date <= study_days.known_date
    where
        observations.is_asked
        and study_days.known_date > study_days.activity_date

),

-- One sequence of days per enrollment, and one for each late view.
seen_days as (

    select
        enrollment_number,
        {{ far_date() }} as seen_on,
        activity_date
    from study_days

    union all

    select
        late_views.enrollment_number,
        late_views.as_of_date as seen_on,
        study_days.activity_date
    from late_views
    inner join study_days
        on
            late_views.enrollment_number = study_days.enrollment_number
            and late_views.as_of_date > study_days.known_date

),

with_previous as (

    select
        *,
        lag(activity_date) over (
            partition by enrollment_number, seen_on
            order by activity_date
        ) as previous_date,
        row_number() over (
            partition by enrollment_number, seen_on
            order by activity_date
        ) as day_number
    from seen_days

),

-- Days running have the same distance to their number.
numbered as (

    select
        *,
        {{ dbt.datediff(
            'seen_on', 'activity_date', 'day'
        ) }} - day_number as streak_id,
        {{ dbt.datediff(
            'previous_date', 'activity_date', 'day'
        ) }} - 1 as pause_before
    from with_previous

),

with_streaks as (

    select
        *,
        row_number() over (
            partition by enrollment_number, seen_on, streak_id
            order by activity_date
        ) as streak_days
    from numbered

),

so_far as (

    select
        enrollment_number,
        seen_on,
        activity_date,
        streak_days,
        max(streak_days) over (
            partition by enrollment_number, seen_on
            order by activity_date
            rows between unbounded preceding and current row
        ) as longest_streak,
        max(pause_before) over (
            partition by enrollment_number, seen_on
            order by activity_date
            rows between unbounded preceding and current row
        ) as longest_pause
    from with_streaks

),

-- How concentrated study is on fixed weekdays: of all pairs of active days, those
-- that share theirs (the unbiased estimator of Simpson, "Measurement of Diversity",
-- Nature 163, 1949). The largest share of a weekday would fall with every day more.
paced as (

    select
        observations.*,
        sums.active_days,
        sums.weekday_5,
        sums.weekday_6,
        sums.timed_facts,
        sums.evening_facts,
        {% for number in range(7) -%}
        {%- if not loop.first %} + {% endif -%}
        sums.weekday_{{ number }} * (sums.weekday_{{ number }} - 1)
        {%- endfor %} as same_weekday_pairs,
        sums.active_days * (sums.active_days - 1) as pairs,
        {{ dbt.datediff(
            'sums.last_date', 'observations.as_of_date', 'day'
        ) }} - 1 as pause_after,
        so_far.streak_days,
        so_far.longest_streak,
        so_far.longest_pause
    from observations
    inner join sums
        on
            observations.enrollment_number = sums.enrollment_number
            and observations.as_of_date = sums.as_of_date
    left join late_views
        on
            observations.enrollment_number = late_views.enrollment_number
            and observations.as_of_date = late_views.as_of_date
    left join so_far
        on
            observations.enrollment_number = so_far.enrollment_number
            and sums.last_date = so_far.activity_date
            and so_far.seen_on = coalesce(late_views.as_of_date, {{ far_date() }})
    where observations.is_asked

),

features as (

    select
        observations.student_id,
        observations.course_run_id,
        observations.as_of_date,
        {{ if_recorded('observations.longest_streak', 'study') }}
            as habit_longest_streak_days,
        {{ if_recorded(
            'case when observations.pause_after = 0 then observations.streak_days end',
            'study'
        ) }} as habit_current_streak_days,
        case
            when observations.pause_after is not null
                then {{ as_number(
                    'greatest(coalesce(observations.longest_pause, 0),'
                    ~ ' observations.pause_after)'
                ) }}
        end as habit_longest_gap_days,
        {{ ratio(
            'observations.weekday_5 + observations.weekday_6',
            'observations.active_days'
        ) }} as habit_weekend_share,
        {{ ratio('observations.evening_facts', 'observations.timed_facts') }}
            as habit_evening_share,
        {{ ratio('observations.same_weekday_pairs', 'observations.pairs') }}
            as habit_weekday_regularity
    from paced as observations
    left join coverage
        on observations.activity_scope_id = coverage.activity_scope_id

)

select * from features
