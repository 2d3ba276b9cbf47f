{#
  95 % intervals of shares whose cases come in clusters: a student has several
  points, and they resemble each other. Everything is computed from exact sums, so
  that the order of rows changes nothing. tests/macros/assert_intervals_work.sql
  holds worked numbers.
#}


{% macro z_95() %}{{ return('1.959963984540054') }}{% endmacro %}


{#
  Linearised variance of the ratio sum(y) / sum(m) over clusters with totals y, m
  (Cochran, Sampling Techniques, 1977, 6.3 and 9A; the "ultimate cluster" variance):
  n / (n - 1) * sum((y - r m)^2) / sum(m)^2, null for a single cluster. Takes the
  names of the columns that hold the sums of y, m, y*y, y*m, m*m, and n.
#}
{% macro clustered_variance(y, m, yy, ym, mm, clusters) -%}
    {{ as_number(clusters) }} / nullif({{ as_number(clusters) }} - 1, 0)
    * (
        {{ as_number(yy) }}
        - 2 * ({{ ratio(y, m) }}) * {{ as_number(ym) }}
        + ({{ ratio(y, m) }}) * ({{ ratio(y, m) }}) * {{ as_number(mm) }}
    ) / nullif({{ as_number(m) }} * {{ as_number(m) }}, 0)
{%- endmacro %}


{#
  How many independent cases would be as sure: share * (1 - share) / variance, at
  most the cases there are (Franco, Little, Louis and Slud, Journal of Survey
  Statistics and Methodology 7, 2019). At a share of 0 or 1 the data show no
  variance: then every cluster counts as one case, which errs on the wide side.
#}
{% macro effective_cases(share, variance, cases, clusters) -%}
    case
        when {{ share }} > 0 and {{ share }} < 1 and {{ variance }} > 1e-12
            then least(
                {{ as_number(cases) }}, {{ share }} * (1 - {{ share }}) / {{ variance }}
            )
        else {{ as_number(clusters) }}
    end
{%- endmacro %}


{# One end of the Wilson score interval (Wilson, JASA 22, 1927); `sign` is '-' or '+'.
   Rounding must not put a share of 0 or 1 outside. #}
{% macro wilson_end(share, cases, sign) -%}
    {%- set z = z_95() -%}
    case
        when {{ share }} is not null and {{ cases }} > 0
            then {{ 'greatest(0, least(' if sign == '-' else 'least(1, greatest(' }}
                {{ share }},
                (
                    {{ share }} + {{ z }} * {{ z }} / (2 * {{ cases }})
                    {{ sign }} {{ z }} * sqrt(
                        {{ share }} * (1 - {{ share }}) / {{ cases }}
                        + {{ z }} * {{ z }} / (4 * {{ cases }} * {{ cases }})
                    )
                ) / (1 + {{ z }} * {{ z }} / {{ cases }})
            ))
    end
{%- endmacro %}


{#
  Point of the standard normal that is exceeded with probability `tail` (below
  0.5), to 0.0005 (Abramowitz and Stegun 1964, 26.2.23).
#}
{% macro normal_point(tail) -%}
    {%- set t = 'sqrt(-2 * ln(' ~ tail ~ '))' -%}
    {{ t }} - (2.515517 + 0.802853 * {{ t }} + 0.010328 * {{ t }} * {{ t }})
    / (
        1 + 1.432788 * {{ t }} + 0.189269 * {{ t }} * {{ t }}
        + 0.001308 * {{ t }} * {{ t }} * {{ t }}
    )
{%- endmacro %}


{# A share in a sentence: 0.310. #}
{% macro share_as_text(share) -%}
    cast({{ as_decimal(share, 6, 3) }} as {{ dbt.type_string() }})
{%- endmacro %}
