{{ config(contract={'enforced': true}) }}

-- Where drafts are weak: what advisors change before they decide. Of the messages
-- that somebody has decided on, because the others may still be edited.

with

reviewed as (

    select * from {{ ref('review_times') }}

),

edits as (

    select
        message_id,
        part,
        sum(words_removed) as words_removed,
        sum(words_added) as words_added
    from {{ source('intervene', 'message_edits') }}
    group by
        message_id,
        part

),

-- A part beside the others: any of them.
edits_and_any as (

    select
        message_id,
        part,
        words_removed,
        words_added
    from edits

    union all

    select
        message_id,
        'any' as part,
        sum(words_removed) as words_removed,
        sum(words_added) as words_added
    from edits
    group by message_id

),

reviewed_by_kind as (

    select
        drafter,
        channel,
        tone,
        count(*) as reviewed_messages
    from reviewed
    group by
        drafter,
        channel,
        tone

),

edited_by_kind as (

    select
        reviewed.drafter,
        reviewed.channel,
        reviewed.tone,
        edits_and_any.part,
        count(*) as edited_messages,
        cast(sum(edits_and_any.words_removed) as {{ dbt.type_bigint() }})
            as words_removed,
        cast(sum(edits_and_any.words_added) as {{ dbt.type_bigint() }})
            as words_added
    from reviewed
    inner join edits_and_any on reviewed.message_id = edits_and_any.message_id
    group by
        reviewed.drafter,
        reviewed.channel,
        reviewed.tone,
        edits_and_any.part

),

message_edit_rates as (

    select
        edited_by_kind.drafter,
        edited_by_kind.channel,
        edited_by_kind.tone,
        edited_by_kind.part,
        reviewed_by_kind.reviewed_messages,
        edited_by_kind.edited_messages,
        {{ ratio(
            'edited_by_kind.edited_messages', 'reviewed_by_kind.reviewed_messages'
        ) }}
            as edited_share,
        edited_by_kind.words_removed,
        edited_by_kind.words_added
    from edited_by_kind
    inner join reviewed_by_kind
        on
            edited_by_kind.drafter = reviewed_by_kind.drafter
            and edited_by_kind.channel = reviewed_by_kind.channel
            and edited_by_kind.tone = reviewed_by_kind.tone

)

select * from message_edit_rates
