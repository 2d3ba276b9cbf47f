"""What advisors change in drafts: by part and in words, never the text itself."""

import re
from difflib import SequenceMatcher
from typing import Any

import sqlalchemy as sa

from intervene.store import Store, message_edits, messages

STEP = re.compile(r"^\s*[-*\N{BULLET}]\s", re.MULTILINE)


def edited_parts(store: Store, source_system: str) -> list[dict[str, Any]]:
    """One row per edit and part of the message that it changed.

    An edit is compared with the text before it. Texts that retention has emptied
    tell nothing any more and give no row.
    """
    columns = message_edits.c
    texts = {
        row["message_id"]: row
        for row in store.rows(
            sa.select(messages.c.message_id, messages.c.subject, messages.c.body).where(
                messages.c.source_system == source_system
            )
        )
    }
    edits = store.rows(
        sa.select(message_edits).order_by(columns.message_id, columns.edit)
    )
    found = []
    for edit in edits:
        before = texts.get(edit["message_id"])
        if before is None:
            continue
        texts[edit["message_id"]] = edit
        if before["body"] and edit["body"]:
            key = {name: edit[name] for name in ("message_id", "edit", "edited_at")}
            found += [key | part for part in _changes(before, edit)]
    return found


def parts(subject: str | None, body: str) -> dict[str, str]:
    """A message cut up as it is laid out: subject, opening, reason, steps, closing.

    A body without a list of steps, such as that of a text message, is one part.
    """
    found = {"subject": subject or ""}
    paragraphs = [text.strip() for text in re.split(r"\n\s*\n", body) if text.strip()]
    lists = [i for i, text in enumerate(paragraphs) if STEP.search(text)]
    if not lists or lists[0] == 0:
        return found | {"text": body}
    first, last = lists[0], lists[-1]
    return found | {
        "opening": paragraphs[0],
        "reason": "\n".join(paragraphs[1:first]),
        "steps": "\n".join(paragraphs[first : last + 1]),
        "closing": "\n".join(paragraphs[last + 1 :]),
    }


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    old = parts(before["subject"], before["body"])
    new = parts(after["subject"], after["body"])
    if set(old) != set(new):
        # Laid out otherwise: the body as a whole is what was changed.
        old = {"subject": old["subject"], "text": before["body"]}
        new = {"subject": new["subject"], "text": after["body"]}
    found = []
    for name, text in old.items():
        removed, added = _words_changed(text.split(), new[name].split())
        if removed or added:
            changed = {"words_removed": removed, "words_added": added}
            found.append({"part": name, **changed})
    return found


def _words_changed(old: list[str], new: list[str]) -> tuple[int, int]:
    """Words that went and words that came, in the longest common reading."""
    blocks = SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
    kept = sum(block.size for block in blocks)
    return len(old) - kept, len(new) - kept
