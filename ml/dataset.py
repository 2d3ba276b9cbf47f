"""From the warehouse to points in memory, and which of them serve for what."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

import duckdb
import numpy as np
import pandas as pd

from ml.features import BOOLEAN, CATEGORY, NUMBER
from ml.settings import UserError
from ml.warehouse import require_tables

KEY = ["student_id", "course_id", "assessment_id", "as_of_date"]
TARGETS = "student_targets"
FEATURES = "student_features_14d"
TARGET_COLUMNS = [
    *KEY,
    "course_run_id",
    "due_at",
    "lead_days",
    "is_training_point",
    "is_scoring_point",
    "run_started_at",
    "is_first_sitting",
    "at_risk",
    "label_status",
    "label_known_at",
    "contacted_before_due",
]
# Share of the days that the test period takes by default, and share of the earlier
# points that calibration takes.
NEWEST_SHARE = 0.2
FOLDS = 3
KNOWN_PARTS = ("search", "between", "calibration")
NUMBER_TYPE = re.compile(r"(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL)\b")


@dataclass(frozen=True)
class Points:
    """Prediction points in key order: what is known of each, and its features.

    `targets` and `features` have the same rows; `kinds` says number, boolean or
    category for each feature column.
    """

    targets: pd.DataFrame
    features: pd.DataFrame
    kinds: dict[str, str]

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: pd.Series | np.ndarray) -> "Points":
        """The points for which `rows` is true, still in key order."""
        chosen = np.asarray(rows, dtype=bool)
        return Points(
            self.targets[chosen].reset_index(drop=True),
            self.features[chosen].reset_index(drop=True),
            self.kinds,
        )

    @property
    def labels(self) -> np.ndarray:
        """`at_risk` as integers; only for points with a matured label."""
        return self.targets["at_risk"].to_numpy(dtype=np.int64)

    @property
    def days(self) -> pd.Series:
        """`as_of_date` of each point."""
        return self.targets["as_of_date"].dt.date

    @property
    def students(self) -> np.ndarray:
        """`student_id` of each point."""
        return self.targets["student_id"].to_numpy(dtype=object)


@dataclass(frozen=True)
class Sizes:
    """Where the data were divided, and how many points serve for what.

    `known` are those that the final model is trained on, `left_out` serve for nothing.
    """

    test_from: date
    calibration_from: date
    known: int
    calibration: int
    test: int
    left_out: int


@dataclass(frozen=True)
class Split:
    """Who is searched on, calibrated on and tested on; no point is in two.

    `matured` holds the points of all parts; `part` names the part of each: search,
    between (asked before the calibration period, label known in it), calibration,
    test or left_out.
    """

    search: Points
    calibration: Points
    test: Points
    matured: Points
    part: np.ndarray
    test_from: date
    calibration_from: date

    @property
    def sizes(self) -> "Sizes":
        """How many points serve for what."""
        return Sizes(
            test_from=self.test_from,
            calibration_from=self.calibration_from,
            known=int(self.is_known.sum()),
            calibration=len(self.calibration),
            test=len(self.test),
            left_out=int((self.part == "left_out").sum()),
        )

    @property
    def is_known(self) -> np.ndarray:
        """Which of `matured` had a known label when the first test question was
        asked: search, between and calibration."""
        return np.isin(self.part, KNOWN_PARTS)

    @cached_property
    def known(self) -> Points:
        """The points that the final model is trained on."""
        return self.matured.take(self.is_known)


# ---------------------------------------------------------------- reading


def read_points(connection: duckdb.DuckDBPyConnection) -> Points:
    """Read matured training points with their features.

    Raises
    ------
    UserError
        A table is missing, a feature has a type that the model cannot take, or a
        point has no row of features.
    """
    kinds = feature_kinds(connection)
    frame = connection.execute(
        _points_query(
            TARGET_COLUMNS,
            kinds,
            "targets.is_training_point and targets.label_status = 'matured'",
        )
        + f" order by {', '.join(f'targets.{name}' for name in KEY)}"
    ).df()
    refuse_lost(int((~frame.pop("has_features").astype(bool)).sum()))
    # A feature may have the name of a target column, such as lead_days.
    features = frame[[feature_column(name) for name in kinds]]
    features.columns = pd.Index(list(kinds))
    return Points(_tidy_targets(frame[TARGET_COLUMNS]), features, kinds)


def scoring_points_query(columns: list[str], kinds: dict[str, str]) -> str:
    """A query for the scoring points: these columns of the targets, the features.

    `has_features` is false where a point has no row of features.
    """
    return _points_query(columns, kinds, "targets.is_scoring_point")


def feature_column(name: str) -> str:
    """What a feature is called beside the columns of the targets."""
    return f"feature_{name}"


def refuse_lost(points: int) -> None:
    """Raise UserError if there are points without features."""
    if points:
        raise UserError(
            f"{points} points of {TARGETS} have no row in {FEATURES}: one of the two "
            "tables is older than the other. Run `dbt build`."
        )


def feature_kinds(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Number, boolean or category for each feature column, in the table's order."""
    require_tables(connection, [TARGETS, FEATURES])
    described = connection.execute(f"describe main.{FEATURES}").fetchall()
    return kinds_of({row[0]: str(row[1]) for row in described if row[0] not in KEY})


def kinds_of(types: dict[str, str]) -> dict[str, str]:
    """Number, boolean or category for each feature, from its SQL type.

    Raises
    ------
    UserError
        Naming every feature of a type that the model cannot take.
    """
    kinds = {name: _kind_of(sql_type.upper()) for name, sql_type in types.items()}
    refused = [f"{name} ({types[name]})" for name, kind in kinds.items() if not kind]
    if refused or not kinds:
        raise UserError(
            f"{FEATURES} has feature columns that the model cannot take: "
            f"{', '.join(refused) or 'none at all'}. Features are numbers, "
            "booleans or text (a category)."
        )
    return kinds


def _kind_of(sql_type: str) -> str:
    if sql_type == "BOOLEAN":
        return BOOLEAN
    if sql_type in ("VARCHAR", "STRING"):
        return CATEGORY
    return NUMBER if NUMBER_TYPE.match(sql_type) else ""


def _points_query(columns: list[str], kinds: dict[str, str], which: str) -> str:
    targets = ", ".join(f"targets.{name}" for name in columns)
    features = ", ".join(
        f'{_feature_value(name, kind)} as "{feature_column(name)}"'
        for name, kind in kinds.items()
    )
    same_key = " and ".join(f"targets.{name} = features.{name}" for name in KEY)
    return (
        f"select {targets}, features.student_id is not null as has_features,"
        f" {features}"
        f" from main.{TARGETS} as targets"
        f" left join main.{FEATURES} as features on {same_key}"
        f" where {which}"
    )


def _feature_value(name: str, kind: str) -> str:
    if kind == CATEGORY:
        return f'cast(features."{name}" as varchar)'
    # What is not a number is not known.
    return f"""nullif(cast(features."{name}" as double), cast('nan' as double))"""


def _tidy_targets(targets: pd.DataFrame) -> pd.DataFrame:
    booleans = [
        "is_training_point",
        "is_scoring_point",
        "is_first_sitting",
        "contacted_before_due",
    ]
    unknown = targets[booleans].isna()
    filled = targets[booleans].astype("boolean").mask(unknown, False).astype(bool)
    return targets.assign(**{name: filled[name] for name in booleans})


# ---------------------------------------------------------------- splitting


def headline_lead(leads: tuple[int, ...]) -> int:
    """The lead by which a model is judged: the one nearest to 14 days."""
    return min(leads, key=lambda lead: (abs(lead - 14), -lead))


def split_points(
    points: Points, test_from: date | None, as_of_date: date, headline: int
) -> Split:
    """Divide the matured training points by time.

    Test is what stands at or after `test_from`. Of the points whose label was known
    before it, the newest fifth (by as_of_date, whole days) calibrates, and those
    whose label was known before that fifth begins are searched on. The final model
    is trained on all whose label was known before `test_from`.

    Parameters
    ----------
    test_from
        None: the first day of the newest fifth, counted in days, of the period from
        the first to the last matured training point not after `as_of_date`.
    headline
        The lead that has to be in the test period.

    Raises
    ------
    UserError
        A part is empty or holds one class only; the message says which days work.
    """
    matured = points.take(
        points.targets["is_training_point"]
        & (points.targets["label_status"] == "matured")
    )
    if not len(matured):
        raise UserError(
            f"{TARGETS} has no training point with a matured label, so there is "
            "nothing to learn from yet."
        )
    chosen = test_from or default_test_from(matured.days, as_of_date)
    check_order(chosen, as_of_date)
    split = _split_at(matured, chosen)
    problems = _problems_of(split, headline)
    if problems:
        raise UserError(
            f"With TEST_FROM {chosen} the data cannot be divided: "
            f"{'; '.join(problems)}. {_days_that_work(matured, as_of_date, headline)}"
        )
    return split


def replay_split(split: Split) -> Split | None:
    """The same division one step earlier: the calibration period is the test.

    It holds only what was known before `test_from`, so that a choice can be judged on
    a later time than it was made on without a look at the test period. None where
    there are too few points for it.
    """
    earlier = _split_at(split.known, split.calibration_from)
    parts = (
        ("search", earlier.search),
        ("calibration", earlier.calibration),
        ("test", earlier.test),
    )
    if any(_problem_of(name, part, FOLDS) for name, part in parts):
        return None
    return earlier


def check_order(test_from: date, as_of_date: date) -> None:
    """Raise UserError where the day that is scored lies before the test period."""
    if as_of_date < test_from:
        raise UserError(
            f"AS_OF_DATE {as_of_date} lies before TEST_FROM {test_from}: the model "
            "would be tested on days after those it scores. Choose a later AS_OF_DATE "
            "or an earlier TEST_FROM."
        )


def default_test_from(days: Iterable[date], as_of_date: date) -> date:
    """First day of the newest fifth, in days, of the period of matured points.

    Parameters
    ----------
    days
        Days on which matured training points stand, each at least once.
    """
    tried = [day for day in days if day <= as_of_date]
    if not tried:
        raise UserError(
            f"No training point with a matured label stands at or before AS_OF_DATE "
            f"{as_of_date}. Choose a later day."
        )
    first, last = min(tried), max(tried)
    kept = math.floor(((last - first).days + 1) * (1 - NEWEST_SHARE))
    return first + timedelta(days=kept)


def _split_at(matured: Points, test_from: date) -> Split:
    day = matured.targets["as_of_date"]
    known = matured.targets["label_known_at"]
    start = pd.Timestamp(test_from)
    is_test = day >= start
    is_early = ~is_test & (known < start)
    counts = day[is_early].value_counts()
    calibration_start = newest_fifth(counts) if is_early.any() else start
    is_calibration = is_early & (day >= calibration_start)
    is_search = is_early & (known < calibration_start)
    return Split(
        search=matured.take(is_search),
        calibration=matured.take(is_calibration),
        test=matured.take(is_test),
        matured=matured,
        part=np.select(
            [is_search, is_calibration, is_test, is_early],
            ["search", "calibration", "test", "between"],
            "left_out",
        ),
        test_from=test_from,
        calibration_from=calibration_start.date(),
    )


def newest_fifth(points: pd.Series) -> pd.Timestamp:
    """The day from which on the share of points is nearest to a fifth.

    Parameters
    ----------
    points
        How many stand on each day; the index is the days.
    """
    newest_first = points.sort_index(ascending=False)
    share = newest_first.cumsum() / newest_first.sum()
    return share.index[int((share - NEWEST_SHARE).abs().to_numpy().argmin())]


def _problems_of(split: Split, headline: int) -> list[str]:
    at_headline = split.test.take(
        (split.test.targets["lead_days"] == headline)
        & ~split.test.targets["contacted_before_due"]
    )
    parts = {
        "the search period": (split.search, FOLDS),
        f"the calibration period (from {split.calibration_from})": (
            split.calibration,
            1,
        ),
        f"the test period at lead {headline}": (at_headline, 1),
    }
    found = [
        _problem_of(name, part, students) for name, (part, students) in parts.items()
    ]
    return [problem for problem in found if problem]


def _problem_of(name: str, part: Points, needed: int) -> str:
    failing, passing = (
        len(set(part.students[part.labels == label])) for label in (1, 0)
    )
    return describe_problem(name, failing, passing, needed)


def describe_problem(name: str, failing: int, passing: int, needed: int) -> str:
    """Why a part with so many students of each kind is of no use, or nothing."""
    if not failing + passing:
        return f"{name} has no point with a known label"
    for students, word in ((failing, "failing"), (passing, "passing")):
        if students < needed:
            return f"{name} has fewer than {needed} {word} students"
    return ""


def _days_that_work(matured: Points, as_of_date: date, headline: int) -> str:
    days = matured.days
    tried = sorted({day for day in days if day <= as_of_date})
    steps = tried[:: max(1, len(tried) // 50)]
    good = [d for d in steps if not _problems_of(_split_at(matured, d), headline)]
    if not good:
        return "No other TEST_FROM would do: more terms of data are needed."
    return f"TEST_FROM between {good[0]} and {good[-1]} has days that work."
