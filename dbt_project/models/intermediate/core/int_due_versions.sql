-- When is this student due, and from when until when was that what one knew?
-- A booking replaces the due time from the moment it was booked, not before.

with

enrollments as (

    select * from {{ ref('int_enrollments') }}

),

assessments as (

    select * from {{ canonical('assessments') }}

),

bookings as (

    select * from {{ canonical('bookings') }}

),

-- A result carried over from an earlier run says that the sitting is not met.
carried_over as (

    select distinct
        student_id,
        assessment_id
    from {{ canonical('results') }}
    where is_carried_over

),

offered as (

    select
        enrollments.student_id,
        enrollments.course_id,
        enrollments.course_run_id,
        enrollments.began_at,
        enrollments.valid_to,
        enrollments.next_began_at,
        assessments.assessment_id,
        assessments.kind,
        assessments.weight,
        assessments.pass_mark,
        assessments.due_at,
        case
            when assessments.due_at < enrollments.began_at then 1 else 0
        end as is_past
    from enrollments
    inner join assessments
        on
            enrollments.course_id = assessments.course_id
            and enrollments.course_run_id
            = coalesce(assessments.course_run_id, enrollments.course_run_id)
    left join carried_over
        on
            enrollments.student_id = carried_over.student_id
            and assessments.assessment_id = carried_over.assessment_id
    where carried_over.student_id is null

),

-- Versions of one assessment share an id: the first one still to come counts.
issues as (

    select
        *,
        row_number() over (
            partition by student_id, course_run_id, assessment_id
            order by is_past, due_at nulls last
        ) as issue_number,
        row_number() over (
            partition by student_id, course_run_id, kind, is_past
            order by due_at nulls last, assessment_id
        ) as number_of_kind
    from offered

),

met_by_default as (

    select *
    from issues
    where
        issue_number = 1
        and is_past = 0
        and (
            due_at is null
            or (kind = 'exam' and number_of_kind = 1)
            or (kind <> 'exam' and valid_to is null)
            or (kind <> 'exam' and due_at <= valid_to)
        )

),

booked as (

    select
        issues.*,
        bookings.scheduled_at,
        bookings.booked_at
    from issues
    inner join bookings
        on
            issues.student_id = bookings.student_id
            and issues.assessment_id = bookings.assessment_id
    where
        issues.issue_number = 1
        and bookings.scheduled_at >= issues.began_at
        -- What is booked in a later enrollment belongs to that one.
        and bookings.booked_at
        < coalesce(issues.next_began_at, bookings.scheduled_at)

),

versions as (

    select
        student_id,
        course_id,
        course_run_id,
        assessment_id,
        kind,
        weight,
        pass_mark,
        began_at,
        due_at as issue_due_at,
        due_at,
        cast(null as {{ dbt.type_timestamp() }}) as known_from,
        0 as is_booking
    from met_by_default

    union all

    select
        student_id,
        course_id,
        course_run_id,
        assessment_id,
        kind,
        weight,
        pass_mark,
        began_at,
        due_at as issue_due_at,
        scheduled_at as due_at,
        booked_at as known_from,
        1 as is_booking
    from booked

),

numbered as (

    select
        *,
        row_number() over (
            partition by student_id, course_run_id, assessment_id
            order by is_booking, known_from, due_at
        ) as version_number
    from versions

),

with_earlier as (

    select
        *,
        lag(due_at) over (
            partition by student_id, course_run_id, assessment_id
            order by version_number
        ) as earlier_due_at
    from numbered

),

-- Booked after the due time had passed: a resit, not a new due time.
resits_marked as (

    select
        *,
        max(case when known_from > earlier_due_at then 1 else 0 end) over (
            partition by student_id, course_run_id, assessment_id
            order by version_number
            rows between unbounded preceding and current row
        ) as is_resit
    from with_earlier

),

-- Booking another exam of the course replaces the one that was only presumed.
first_exam_bookings as (

    select
        student_id,
        course_run_id,
        min(known_from) as booked_at
    from resits_marked
    where
        kind = 'exam'
        and is_booking = 1
        and is_resit = 0
    group by
        student_id,
        course_run_id

),

with_ends as (

    select
        resits_marked.*,
        case
            when
                resits_marked.kind = 'exam'
                and resits_marked.is_booking = 0
                and first_exam_bookings.booked_at <= resits_marked.due_at
                then first_exam_bookings.booked_at
        end as presumed_until,
        lead(resits_marked.known_from) over (
            partition by
                resits_marked.student_id,
                resits_marked.course_run_id,
                resits_marked.assessment_id
            order by resits_marked.version_number
        ) as next_known_from
    from resits_marked
    left join first_exam_bookings
        on
            resits_marked.student_id = first_exam_bookings.student_id
            and resits_marked.course_run_id
            = first_exam_bookings.course_run_id
    where resits_marked.is_resit = 0

),

due_versions as (

    select
        student_id,
        course_id,
        course_run_id,
        assessment_id,
        kind,
        weight,
        pass_mark,
        began_at,
        issue_due_at,
        due_at,
        known_from,
        least(
            coalesce(next_known_from, presumed_until),
            coalesce(presumed_until, next_known_from)
        ) as known_until,
        cast(version_number as {{ dbt.type_int() }}) as version_number,
        next_known_from is null as is_final
    from with_ends

)

select * from due_versions
