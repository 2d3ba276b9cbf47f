{#
  What: the variance of a share whose cases come in clusters, the independent cases it
  is worth, the Wilson interval and the point of the normal, on worked numbers.
  When it matters: an interval that takes five points of one student for five students
  is too narrow, and a difference between groups that is chance looks like a finding.
  How to fix: see macros/intervals.sql.
#}

with

-- Three students with 2 of 2, 0 of 2 and 1 of 2 hits: r = 0.5, and
-- 3/2 * ((2 - 1)^2 + (0 - 1)^2 + (1 - 1)^2) / 6^2 = 1/12; 0.25 / (1/12) = 3 cases.
-- Sums: y 3, m 6, y*y 5, y*m 6, m*m 12.
worked as (

    select
        3 as y,
        6 as m,
        5 as yy,
        6 as ym,
        12 as mm,
        3 as clusters

),

with_variance as (

    select
        worked.*,
        {{ clustered_variance('y', 'm', 'yy', 'ym', 'mm', 'clusters') }} as variance,
        {{ clustered_variance('y', 'm', 'yy', 'ym', 'mm', '1') }} as of_one_cluster
    from worked

),

found as (

    select
        variance,
        of_one_cluster,
        {{ effective_cases('0.5', 'variance', '6', '3') }} as in_the_middle,
        {{ effective_cases('0.5', '0.001', '6', '3') }} as never_more_than_cases,
        {{ effective_cases('1.0', '0', '6', '3') }} as at_one,
        -- Brown, Cai and DasGupta: 0 of 10 has 0 to 0.2775, 5 of 10 0.2366 to 0.7634.
        {{ wilson_end('0.0', '10', '-') }} as none_low,
        {{ wilson_end('0.0', '10', '+') }} as none_high,
        {{ wilson_end('0.5', '10', '-') }} as half_low,
        {{ wilson_end('0.5', '10', '+') }} as half_high,
        {{ wilson_end('1.0', '10', '+') }} as all_high,
        {{ wilson_end('cast(null as double)', '10', '-') }} as undefined,
        {{ normal_point('0.025e0') }} as two_sided_95,
        {{ normal_point('0.0005e0') }} as two_sided_999
    from with_variance

)

select * from found
where not (
    abs(variance - 1 / 12e0) < 1e-12
    and of_one_cluster is null
    and abs(in_the_middle - 3) < 1e-12
    and never_more_than_cases = 6
    and at_one = 3
    and none_low = 0
    and abs(none_high - 0.2775) < 0.0001
    and abs(half_low - 0.2366) < 0.0001
    and abs(half_high - 0.7634) < 0.0001
    and all_high = 1
    and undefined is null
    and abs(two_sided_95 - 1.95996) < 0.0005
    and abs(two_sided_999 - 3.29053) < 0.0005
)
