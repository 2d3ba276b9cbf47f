"""Which points serve for what: time decides, and nobody is on both sides."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import AS_OF_DATE, LEADS, TEST_FROM, Project, World, make_project

from ml.dataset import (
    KEY,
    Points,
    Split,
    default_test_from,
    headline_lead,
    read_points,
    replay_split,
    split_points,
)
from ml.settings import UserError
from ml.warehouse import open_warehouse


def _read(project: Project) -> Points:
    with open_warehouse(project.settings.warehouse_path, read_only=True) as connection:
        return read_points(connection)


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Points:
    """The points of the usual synthetic world."""
    return _read(make_project(tmp_path_factory.mktemp("points")))


@pytest.fixture(scope="module")
def split(points: Points) -> Split:
    """Its usual split."""
    return split_points(points, TEST_FROM, AS_OF_DATE, 14)


def _keys(part: Points) -> set[tuple[object, ...]]:
    return set(part.targets[KEY].itertuples(index=False, name=None))


def test_no_point_serves_twice_and_all_are_counted(
    points: Points, split: Split
) -> None:
    parts = [_keys(split.search), _keys(split.calibration), _keys(split.test)]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]
    matured = points.targets["label_status"] == "matured"
    assert parts[0] | parts[1] <= _keys(split.known)
    assert not _keys(split.known) & parts[2]
    used = len(split.known) + len(split.test)
    training = points.targets["is_training_point"]
    assert used + split.sizes.left_out == int((matured & training).sum())


def test_nothing_is_trained_on_that_was_not_known_in_time(split: Split) -> None:
    test_from = pd.Timestamp(split.test_from)
    calibration_from = pd.Timestamp(split.calibration_from)
    assert split.search.targets["label_known_at"].max() < calibration_from
    assert split.calibration.targets["as_of_date"].min() >= calibration_from
    assert split.calibration.targets["label_known_at"].max() < test_from
    assert split.test.targets["as_of_date"].min() >= test_from
    assert split.known.targets["label_known_at"].max() < test_from


def test_the_final_model_sees_all_that_was_known_before_the_test(
    points: Points,
) -> None:
    """Also what was asked before the calibration period and answered within it."""
    targets = points.targets.copy()
    targets["label_known_at"] += pd.Timedelta(days=60)
    late = split_points(replace(points, targets=targets), TEST_FROM, AS_OF_DATE, 14)
    known = late.matured.targets["label_known_at"] < pd.Timestamp(TEST_FROM)
    assert (late.part == "between").any()
    assert len(late.known) > len(late.search) + len(late.calibration)
    assert _keys(late.known) == _keys(late.matured.take(known))


def test_the_replay_is_the_same_division_one_period_earlier(split: Split) -> None:
    earlier = replay_split(split)
    assert earlier is not None
    assert _keys(earlier.test) == _keys(split.calibration)
    known = earlier.known.targets["label_known_at"].max()
    assert known < pd.Timestamp(split.calibration_from)
    assert _keys(earlier.search) | _keys(earlier.calibration) <= _keys(split.search)


def test_there_is_no_replay_of_too_little(split: Split) -> None:
    few = split.matured.students == split.matured.students[0]
    assert (
        replay_split(replace(split, part=np.where(few, split.part, "left_out"))) is None
    )


def test_no_sitting_stands_on_both_sides_of_the_test(split: Split) -> None:
    sitting = ["student_id", "assessment_id"]
    before = set(split.known.targets[sitting].itertuples(index=False, name=None))
    after = set(split.test.targets[sitting].itertuples(index=False, name=None))
    assert not before & after


def test_calibration_is_about_a_fifth_of_whole_days(split: Split) -> None:
    days = set(split.calibration.targets["as_of_date"])
    assert not days & set(split.search.targets["as_of_date"])
    earlier = len(split.search) + len(split.calibration)
    assert 0.1 < len(split.calibration) / earlier < 0.3


def test_the_default_test_period_is_the_newest_fifth_in_days(points: Points) -> None:
    matured = points.take(points.targets["label_status"] == "matured")
    days = matured.targets["as_of_date"].dt.date
    start = default_test_from(matured.days, AS_OF_DATE)
    length = (max(days) - min(days)).days + 1
    assert (start - min(days)).days == int(0.8 * length)
    assert default_test_from(matured.days, AS_OF_DATE - timedelta(days=200)) < start


def test_a_day_to_score_before_the_test_is_refused(points: Points) -> None:
    with pytest.raises(UserError, match="lies before TEST_FROM"):
        split_points(points, TEST_FROM, TEST_FROM - timedelta(days=1), 14)


@pytest.mark.parametrize("day", [date(2022, 1, 1), date(2024, 1, 14)])
def test_a_split_that_cannot_be_names_days_that_work(points: Points, day: date) -> None:
    with pytest.raises(UserError, match="has days that work") as error:
        split_points(points, day, AS_OF_DATE, 14)
    good = str(error.value).split("TEST_FROM between ")[1].split(" and ")[0]
    split_points(points, date.fromisoformat(good), AS_OF_DATE, 14)


def test_one_class_only_is_told(points: Points) -> None:
    passing = points.take(points.targets["at_risk"].fillna(0) == 0)
    with pytest.raises(UserError, match="failing students"):
        split_points(passing, TEST_FROM, AS_OF_DATE, 14)


def test_nothing_matured_is_told(points: Points) -> None:
    pending = points.take(points.targets["label_status"] == "pending")
    with pytest.raises(UserError, match="no training point with a matured label"):
        split_points(pending, TEST_FROM, AS_OF_DATE, 14)


@pytest.mark.parametrize(
    ("leads", "headline"),
    [((28, 21, 14, 7), 14), ((28, 7), 7), ((21, 7), 21), ((0,), 0)],
)
def test_the_headline_lead_is_the_nearest_to_fourteen(
    leads: tuple[int, ...], headline: int
) -> None:
    assert headline_lead(leads) == headline


def test_points_come_in_key_order_whatever_the_tables_do(
    points: Points, tmp_path: Path
) -> None:
    shuffled = _read(make_project(tmp_path, World(shuffle=3)))
    pd.testing.assert_frame_equal(points.targets, shuffled.targets)
    pd.testing.assert_frame_equal(points.features, shuffled.features)


def test_kinds_come_from_the_table(points: Points) -> None:
    assert points.kinds["weekday_habit"] == "category"
    assert points.kinds["opened_anything"] == "boolean"
    assert points.kinds["record_assessments_missed"] == "number"
    assert set(points.targets["lead_days"]) >= set(LEADS)
    assert np.isnan(points.features["to_date_active_days"]).any()


def test_a_feature_of_a_strange_type_is_named(project: Project) -> None:
    project.run("alter table student_features_14d add column odd timestamp")
    with pytest.raises(UserError, match=r"odd \(TIMESTAMP\)"):
        _read(project)


def test_a_point_without_features_is_no_silent_loss(project: Project) -> None:
    project.run("delete from student_features_14d where student_id = 's00001'")
    with pytest.raises(UserError, match="have no row in student_features_14d"):
        _read(project)
