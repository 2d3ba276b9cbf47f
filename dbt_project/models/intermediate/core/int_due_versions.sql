-- When is this student due, and from when until when was that what one knew?
-- A booking replaces the due time from the moment it was booked, not before.

with

enrollments as (

    select * from {{ ref('int_enrollments') }}

),

assessments as (

    select
        *,
        dense_rank() over (
            partition by course_run_id, kind
            order by due_at nulls last
        ) as position_in_run
    from {{ canonical('assessments') }}

),

bookings as (

    select * from {{ canonical('bookings') }}

),

-- Where every due time is known, and every version of an assessment is of one kind, no
-- position depends on what is due later.
plainly_dated as (

    select course_id
    from (
        select
            course_id,
            assessment_id,
            case
                when count(due_at) = count(*) and min(kind) = max(kind) then 0
                else 1
            end as is_odd
        from assessments
        group by
            course_id,
            assessment_id
    ) as dated
    group by course_id
    having max(is_odd) = 0

),

-- A booking may be of what is over, or due after the end of the validity.
booked_kinds as (

    select distinct
        bookings.student_id,
        assessments.course_id,
        assessments.kind
    from bookings
    inner join assessments on bookings.assessment_id = assessments.assessment_id

),

-- A result carried over from an earlier run: from then on there is nothing to sit.
carried_over as (

    select
        student_id,
        assessment_id,
        min(submitted_at) as carried_over_at
    from {{ canonical('results') }}
    where is_carried_over
    group by
        student_id,
        assessment_id

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
        carried_over.carried_over_at,
        case
            when assessments.course_run_id is not null
                then assessments.position_in_run
        end as position_in_run,
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
    left join plainly_dated on enrollments.course_id = plainly_dated.course_id
    left join booked_kinds
        on
            enrollments.student_id = booked_kinds.student_id
            and enrollments.course_id = booked_kinds.course_id
            and assessments.kind = booked_kinds.kind
    -- What no sitting comes of is most of it, in a course that has run for long.
    where
        plainly_dated.course_id is null
        or booked_kinds.kind is not null
        or (
            assessments.due_at >= enrollments.began_at
            and (
                assessments.kind = 'exam'
                or enrollments.valid_to is null
                or assessments.due_at <= enrollments.valid_to
            )
        )

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

-- Among the run's assessments of its kind, also for those who joined late; where
-- there is no common run, among those still to come when the enrollment began.
-- What is booked later moves no position.
positioned as (

    select
        *,
        coalesce(
            position_in_run,
            dense_rank() over (
                partition by student_id, course_run_id, kind, is_past
                order by due_at nulls last
            )
        ) as assessment_position
    from issues
    where issue_number = 1

),

met_by_default as (

    select *
    from positioned
    where
        is_past = 0
        and (
            due_at is null
            or (kind = 'exam' and number_of_kind = 1)
            or (kind <> 'exam' and valid_to is null)
            or (kind <> 'exam' and due_at <= valid_to)
        )

),

booked as (

    select
        positioned.*,
        bookings.scheduled_at,
        bookings.booked_at
    from positioned
    inner join bookings
        on
            positioned.student_id = bookings.student_id
            and positioned.assessment_id = bookings.assessment_id
    where
        bookings.scheduled_at >= positioned.began_at
        -- Noted down afterwards: it never told anybody when to sit.
        and bookings.booked_at < bookings.scheduled_at
        -- What is booked in a later enrollment belongs to that one.
        and (
            positioned.next_began_at is null
            or bookings.booked_at < positioned.next_began_at
        )

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
        assessment_position,
        began_at,
        carried_over_at,
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
        assessment_position,
        began_at,
        carried_over_at,
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
        cast(assessment_position as {{ dbt.type_int() }}) as assessment_position,
        began_at,
        issue_due_at,
        due_at,
        known_from,
        -- The earliest of its ends, null for none.
        nullif(
            least(
                coalesce(next_known_from, {{ far_future() }}),
                coalesce(presumed_until, {{ far_future() }}),
                coalesce(carried_over_at, {{ far_future() }})
            ),
            {{ far_future() }}
        ) as known_until,
        carried_over_at,
        cast(version_number as {{ dbt.type_int() }}) as version_number,
        next_known_from is null as is_final
    from with_ends

)

select * from due_versions
