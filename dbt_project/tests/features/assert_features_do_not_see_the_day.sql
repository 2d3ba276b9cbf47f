-- What is this? Feature rows that contradict [as_of_date - window, as_of_date):
-- something studied or handed in on the day itself or later, more in the window than
-- there are days, or more in the window than ever.
--
-- When does it matter? Always: a feature that sees the day, or one day too many,
-- looks into its own answer.
--
-- How do I fix it? See int_observed_activity, and the comparisons with as_of_date in
-- int_features_record.

{% set window_days = setting('observation_window_days') %}

with

contradictory as (

    select
        student_id,
        assessment_id,
        as_of_date,
        window_active_days,
        to_date_active_days,
        window_longest_gap_days,
        days_since_last_activity,
        record_days_since_handing_in,
        record_days_since_last_due,
        habit_current_streak_days,
        habit_longest_streak_days,
        habit_longest_gap_days
    from {{ ref('student_features_14d') }}
    where
        days_since_last_activity < 1
        or record_days_since_handing_in < 1
        or window_active_days > {{ window_days }}
        or window_active_days > to_date_active_days
        or window_active_days + window_longest_gap_days > {{ window_days }}
        or (window_active_days > 0 and days_since_last_activity > {{ window_days }})
        or (window_active_days = 0 and days_since_last_activity <= {{ window_days }})
        or record_assessments_missed > record_assessments_due
        or record_days_since_last_due < 1
        or (habit_current_streak_days > 0 and days_since_last_activity <> 1)
        or (habit_current_streak_days = 0 and days_since_last_activity = 1)
        or habit_current_streak_days > habit_longest_streak_days
        or habit_longest_streak_days > to_date_active_days
        or habit_longest_gap_days < days_since_last_activity - 1

)

select * from contradictory
