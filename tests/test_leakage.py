"""No time travel, proved: what happens at or after a day changes no feature of it.

Each source gets data, and a twin of it in which every table was changed and
added to wherever the fact became known at or after CUT. Both are built with
AS_OF_DATE = CUT; every prediction point up to and including CUT has to have the
same features to the last bit. The same comparison against features that were
made to peek shows that the proof can fail.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from ml.settings import PROJECT_ROOT
from tests.leakage_data import (
    CUT,
    change_oulad_after,
    change_platform_after,
    write_oulad,
    write_platform,
)
from tests.pipeline import run

KEY = "student_id, course_id, assessment_id, as_of_date"


def build(
    scratch: Path,
    raw: Path,
    source: str,
    target: str = "assessment_not_passed",
    project: Path = PROJECT_ROOT,
) -> duckdb.DuckDBPyConnection:
    """Build the features of `raw` and return a connection to them."""
    run(
        scratch,
        "dbt",
        "run",
        "--select",
        "+student_features_14d",
        "+student_targets",
        project=project,
        SOURCE_SYSTEM=source,
        DATA_RAW_PATH=str(raw),
        AS_OF_DATE=CUT[source],
        TARGET_DEFINITION=target,
    )
    return duckdb.connect(str(scratch / "warehouse.duckdb"), read_only=True)


def features_up_to_cut(connection: duckdb.DuckDBPyConnection, source: str) -> pa.Table:
    """Features of the points up to CUT that nothing after it can add or remove.

    A self-paced assessment becomes a training point on the day it is sat, so of
    the open sittings only those of earlier days are compared, and those scored.
    """
    return (
        connection.execute(
            f"""
        select features.*
        from student_features_14d as features
        inner join student_targets as targets using ({KEY})
        where
            features.as_of_date <= date '{CUT[source]}'
            and (
                targets.due_at is not null
                or targets.is_scoring_point
                or features.as_of_date < date '{CUT[source]}'
            )
        order by {KEY}
        """
        )
        .arrow()
        .read_all()
    )


def differing_columns(left: pa.Table, right: pa.Table) -> list[str]:
    """Columns that differ in any row; `rows` if the points themselves do."""
    keys = KEY.split(", ")
    if left.select(keys) != right.select(keys):
        return ["rows"]
    return [name for name in left.column_names if left[name] != right[name]]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("platform")
    write_platform(folder / "before")
    change_platform_after(folder / "before", folder / "after")
    return folder / "before", folder / "after"


@pytest.fixture(scope="module")
def oulad(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("oulad")
    write_oulad(folder / "before")
    change_oulad_after(folder / "before", folder / "after")
    return folder / "before", folder / "after"


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("platform", "course_repurchased"),
        ("platform", "assessment_not_passed"),
        ("oulad", "assessment_not_passed"),
    ],
)
def test_facts_from_the_day_on_change_no_feature_of_it(
    source: str, target: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    before, after = request.getfixturevalue(source)
    left = features_up_to_cut(build(tmp_path / "left", before, source, target), source)
    right = features_up_to_cut(build(tmp_path / "right", after, source, target), source)
    assert left.num_rows > 500
    assert differing_columns(left, right) == []


@pytest.mark.parametrize("source", ["platform", "oulad"])
def test_every_table_was_changed_from_the_day_on(
    source: str, request: pytest.FixtureRequest
) -> None:
    before, after = request.getfixturevalue(source)
    unchanged = [
        path.name
        for path in sorted(before.iterdir())
        if path.read_bytes() == (after / path.name).read_bytes()
    ]
    # Facts without a time of their own: there is no later version of them.
    timeless = {
        "platform": [],
        "oulad": ["assessments.csv", "courses.csv", "vle.csv"],
    }
    assert unchanged == timeless[source]


def peek_at_activity(project: Path) -> None:
    """Let activity of the as-of day itself into the features."""
    model = "intermediate/features/int_next_observed.sql"
    replace(
        project / "dbt_project/models" / model,
        "order by moved_to, case when day is null then 0 else 1 end, day",
        "order by moved_to, case when day is null then 1 else 0 end, day",
    )


def peek_at_scores(project: Path) -> None:
    """Let scores into the record before they were known."""
    model = "intermediate/features/int_features_record.sql"
    replace(
        project / "dbt_project/models" / model,
        "when sittings.graded_at < observations.as_of_date",
        "when sittings.submitted_at < observations.as_of_date",
    )


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path} no longer reads {old!r}: adapt this test"
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("peek", "shows_in"),
    [
        (peek_at_activity, "window_active_days"),
        (peek_at_scores, "record_mean_score"),
    ],
)
def test_the_proof_fails_when_a_feature_peeks(
    peek: Callable[[Path], None],
    shows_in: str,
    tmp_path: Path,
    platform: tuple[Path, Path],
) -> None:
    project = tmp_path / "project"
    for name in ("dbt_project", "ml"):
        shutil.copytree(PROJECT_ROOT / name, project / name)
    for name in ("dbt_project.yml", "profiles.yml"):
        shutil.copy(PROJECT_ROOT / name, project / name)
    (project / "seeds").mkdir()
    peek(project)
    left, right = (
        features_up_to_cut(
            build(tmp_path / side, raw, "platform", project=project), "platform"
        )
        for side, raw in zip(("left", "right"), platform, strict=True)
    )
    assert shows_in in differing_columns(left, right)
