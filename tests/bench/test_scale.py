"""What `make bench` measured holds its promises: docs/performance.json, as ratios.

`python -m tests.bench.scale` measures and takes hours; these tests judge its results.
"""

import json
from typing import Any

import pytest

from tests.bench.scale.__main__ import RESULTS
from tests.bench.scale.targets import TARGETS, Target

pytestmark = pytest.mark.bench


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """The results of the last run."""
    return dict(json.loads(RESULTS.read_text()))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_target(target: Target, results: dict[str, Any]) -> None:
    """A target that is missed has to hold at least what it held before."""
    value = target.value(results)
    if value is None:
        pytest.skip("not measured at these sizes")
    bound = target.bound if target.held is None else target.held
    assert target.reaches(value, bound), f"{value:.3f} against {bound}"


def test_a_daily_increment_ends_where_a_full_build_does(
    results: dict[str, Any],
) -> None:
    differences = [
        found["features"]["increment_differs"]
        for found in results["sizes"].values()
        if "increment_differs" in found.get("features", {})
    ]
    assert differences
    assert all(not any(found.values()) for found in differences), differences
