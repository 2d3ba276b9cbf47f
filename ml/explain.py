"""Why a score is what it is: exact contributions, told in plain sentences.

The sentences come from the feature table's dbt documentation, the one table from
feature to words: `meta.reason` to an advisor, `meta.reason_student` to the student.
`{value}` is the student's value, `{peer}` the middle one of all students scored
that day, `{window}` the days of the observation window. A contribution can raise the
risk although the value looks good, by its interplay with others: only a value on the
`meta.worrying` side of the middle one is something to act on, or to tell a student.
"""

import math
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml

from ml.features import BOOLEAN, FeatureContract
from ml.settings import PROJECT_ROOT, UserError

FEATURE_DOCS = (
    PROJECT_ROOT / "dbt_project" / "models" / "marts" / "_student_features_14d.yml"
)
FAMILIES = (
    "window",
    "velocity",
    "to_date",
    "habit",
    "record",
    "relative",
    "context",
    "attribute",
)
OTHER_FAMILY = "other"
REASONS = 8
PLACEHOLDERS = {"value", "peer", "window"}
UNKNOWN = "unknown"
# What a reason says of a feature and its value: the columns of `score_reasons`.
WORDS = pa.schema(
    {
        "feature": pa.string(),
        "feature_value": pa.string(),
        "peer_median": pa.float64(),
        "sentence": pa.string(),
        "sentence_student": pa.string(),
        "is_actionable": pa.bool_(),
    }
)


@dataclass(frozen=True)
class FeatureDoc:
    """What the documentation says about one feature."""

    description: str
    family: str = ""
    unit: str = ""
    reason: str | None = None
    reason_student: str | None = None
    actionable: bool = False
    worrying: str | None = None

    def is_worrying(self, value: Any, peer: float) -> bool:
        """Whether the value lies on the worrying side of the middle one."""
        if pd.isna(value) or math.isnan(peer):
            return False
        if self.worrying == "low":
            return bool(float(value) < peer)
        return self.worrying == "high" and bool(float(value) > peer)


@dataclass(frozen=True)
class Words:
    """What a reason says of one value of one feature; the columns of `WORDS`."""

    feature: str
    feature_value: str | None
    peer_median: float | None
    sentence: str
    sentence_student: str | None
    is_actionable: bool


# ---------------------------------------------------------------- documentation


def read_feature_docs(path: Path = FEATURE_DOCS) -> dict[str, FeatureDoc]:
    """Read the documentation of the feature columns; no file, no documentation.

    Raises
    ------
    UserError
        Naming every sentence with a placeholder that is not known.
    """
    if not path.exists():
        return {}
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    docs = {
        column["name"]: _feature_doc(column)
        for model in document["models"]
        for column in model.get("columns", [])
    }
    wrong = [
        f"{name}: {sentence!r}"
        for name, doc in docs.items()
        for sentence in (doc.reason, doc.reason_student)
        if sentence and not _placeholders(sentence) <= PLACEHOLDERS
    ]
    if wrong:
        raise UserError(
            f"{path.name} has sentences with placeholders other than {{value}}, "
            "{peer} and {window}: " + "; ".join(wrong)
        )
    return docs


def _feature_doc(column: dict[str, Any]) -> FeatureDoc:
    meta = column.get("config", {}).get("meta", {})
    return FeatureDoc(
        description=" ".join(str(column.get("description", column["name"])).split()),
        family=meta.get("family", ""),
        unit=meta.get("unit", ""),
        reason=meta.get("reason"),
        reason_student=meta.get("reason_student"),
        actionable=bool(meta.get("actionable", False)),
        worrying=meta.get("worrying"),
    )


def family_of(column: str, docs: dict[str, FeatureDoc]) -> str:
    """The documented family of a feature; else the one that its name begins with."""
    if column in docs and docs[column].family:
        return docs[column].family
    return next(
        (family for family in FAMILIES if column.startswith(f"{family}_")),
        OTHER_FAMILY,
    )


def _placeholders(sentence: str) -> set[str]:
    parsed = string.Formatter().parse(sentence)
    return {name for _, name, _, _ in parsed if name is not None}


# ---------------------------------------------------------------- reasons


def top_reasons(contributions: np.ndarray, names: list[str]) -> pd.DataFrame:
    """The strongest contributions that raise the risk, at most `REASONS` per point.

    Equal contributions stand in order of the feature's name.

    Parameters
    ----------
    contributions
        One row per point, one column per name (no bias).

    Returns
    -------
    pandas.DataFrame
        Columns point (row of `contributions`), reason_rank from 1, feature (column
        of `contributions`), contribution.
    """
    by_name = np.argsort(np.array(names))
    left = contributions[:, by_name]
    points = np.arange(len(left))
    shape = (len(left), min(REASONS, left.shape[1]))
    feature, values = np.empty(shape, dtype=np.int64), np.empty(shape)
    # Few of many: looking for the largest again and again is faster than sorting.
    for rank in range(shape[1]):
        # The first of equals.
        largest = left.argmax(axis=1)
        feature[:, rank] = by_name[largest]
        values[:, rank] = left[points, largest]
        left[points, largest] = -np.inf
    frame = pd.DataFrame(
        {
            "point": np.repeat(points, shape[1]),
            "reason_rank": np.tile(np.arange(1, shape[1] + 1), len(points)),
            "feature": feature.ravel(),
            "contribution": values.ravel(),
        }
    )
    return frame[frame["contribution"] > 0].reset_index(drop=True)


def tell_reasons(
    contributions: np.ndarray,
    features: pd.DataFrame,
    contract: FeatureContract,
    docs: dict[str, FeatureDoc],
    medians: dict[str, float],
    window_days: int,
) -> pa.Table:
    """Rows of `score_reasons` without run and key; `point` is the row of `features`.

    Each value of a feature is put into words once, however many points have it.

    Parameters
    ----------
    contributions
        One row per row of `features`, one column per feature (no bias).
    medians
        Middle value of each feature among all points scored that day.
    """
    reasons = top_reasons(contributions, contract.names)
    point, feature = reasons["point"].to_numpy(), reasons["feature"].to_numpy()
    words: list[Words] = []
    said = np.empty(len(reasons), dtype=np.int64)
    by_feature = np.argsort(feature, kind="stable")
    bounds = np.searchsorted(feature[by_feature], np.arange(len(contract.names) + 1))
    for column, (name, kind) in enumerate(contract.kinds.items()):
        rows = by_feature[bounds[column] : bounds[column + 1]]
        if not len(rows):
            continue
        found = features[name].iloc[point[rows]]
        codes, values = pd.factorize(found)
        # Missing values have code -1: the one after the others.
        said[rows] = len(words) + np.where(codes < 0, len(values), codes)
        words += _put_into_words(
            [*values, None], name, kind, medians[name], docs, window_days
        )
    table = pa.Table.from_pylist([vars(each) for each in words], schema=WORDS)
    told = table.take(pa.array(said))
    for name in ("contribution", "reason_rank", "point"):
        told = told.add_column(0, name, pa.array(reasons[name].to_numpy()))
    return told


def _put_into_words(
    values: list[Any],
    name: str,
    kind: str,
    peer: float,
    docs: dict[str, FeatureDoc],
    window_days: int,
) -> list[Words]:
    doc = docs.get(name, FeatureDoc(description=name.replace("_", " ")))
    unit = "boolean" if kind == BOOLEAN else doc.unit
    return [_tell(value, name, peer, doc, unit, window_days) for value in values]


def _tell(
    value: Any, name: str, peer: float, doc: FeatureDoc, unit: str, window_days: int
) -> Words:
    peer_median = None if math.isnan(peer) else peer
    if pd.isna(value):
        return Words(name, None, peer_median, _not_known(doc), None, False)
    words = {
        "value": format_value(value, unit),
        "peer": format_value(peer, unit),
        "window": str(window_days),
    }
    # Without a sentence of its own the description speaks, with the value behind.
    sentence = (
        doc.reason.format(**words)
        if doc.reason
        else f"{_first_sentence(doc)}: {words['value']}"
    )
    to_act_on = doc.actionable and doc.is_worrying(value, peer)
    to_student = None
    if to_act_on and doc.reason_student:
        to_student = doc.reason_student.format(**words)
    return Words(name, words["value"], peer_median, sentence, to_student, to_act_on)


def _not_known(doc: FeatureDoc) -> str:
    """A missing value says so; to the student it says nothing."""
    text = _first_sentence(doc)
    return f"Not known so far: {text[:1].lower()}{text[1:]}"


def _first_sentence(doc: FeatureDoc) -> str:
    """What comes after it explains nulls and the like."""
    return doc.description.split(". ")[0].rstrip(".")


def format_value(value: Any, unit: str) -> str:
    """A value as a sentence has it: `7`, `2.5`, `40 %`, `yes`, `unknown`."""
    if isinstance(value, str):
        return value
    number = float(value)
    if math.isnan(number):
        return UNKNOWN
    if unit == "boolean":
        return "yes" if number >= 0.5 else "no"
    if unit == "share":
        return f"{_short(100 * number, 0)} %"
    return _short(number, 2 if abs(number) < 1 else 1)


def _short(number: float, digits: int) -> str:
    """Rounded, without a tail of zeros and without minus zero."""
    text = f"{number:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def importance_table(
    contributions: np.ndarray, gains: dict[str, float], contract: FeatureContract
) -> pd.DataFrame:
    """Rows of `feature_importance`: mean absolute contribution, and gain."""
    table = pd.DataFrame(
        {
            "feature": contract.names,
            "mean_abs_contribution": np.abs(contributions).mean(axis=0),
            "gain": [float(gains.get(name, 0.0)) for name in contract.names],
        }
    )
    table = table.sort_values(
        ["mean_abs_contribution", "feature"], ascending=[False, True]
    )
    return table.assign(importance_rank=range(1, len(table) + 1))
