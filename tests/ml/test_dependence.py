"""Partial dependence: the risk with one feature set to the same value for all."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from ml.boosting import fit, training_matrix
from ml.calibrate import NONE, Bands, Scored, fit_map
from ml.dataset import Points
from ml.dependence import SAMPLE_ROWS, partial_dependence
from ml.features import encode, learn_contract
from ml.registry import Artifact, RunInputs

KINDS = {"effort": "number", "idle": "number", "kind": "category"}


@pytest.fixture(scope="module")
def points() -> Points:
    """Effort lowers the risk, `kind` exam raises it, `idle` is of no matter."""
    random = np.random.default_rng(4)
    features = pd.DataFrame(
        {
            "effort": random.normal(0, 1, 4000),
            "idle": random.normal(0, 1, 4000),
            "kind": random.choice(["exam", "quiz"], 4000),
        }
    )
    features.loc[:99, "effort"] = np.nan
    chance = expit(-1.5 * features["effort"].fillna(0) + (features["kind"] == "exam"))
    targets = pd.DataFrame(
        {
            "student_id": [f"s{n}" for n in range(4000)],
            "at_risk": (random.random(4000) < chance).astype(int),
        }
    )
    return Points(targets, features, KINDS)


@pytest.fixture(scope="module")
def artifact(points: Points) -> Artifact:
    """A model of these points, not calibrated."""
    contract = learn_contract(points.features, KINDS)
    matrix = training_matrix(encode(points.features, contract), points.labels, contract)
    nothing = Scored(np.zeros(0), np.zeros(0), np.zeros(0, dtype=object))
    return Artifact(
        run_id="r",
        model=fit(matrix, {"n_estimators": 40, "max_depth": 3, "min_child_weight": 50}),
        fold_models=[],
        contract=contract,
        calibration=fit_map(NONE, nothing),
        bands=Bands(0.5, 0.4, 0.4),
        parameters={},
        inputs=RunInputs("d", "c", "f", {}),
    )


def test_the_curve_follows_what_the_model_learned(
    artifact: Artifact, points: Points
) -> None:
    found = partial_dependence(artifact, points, ["effort", "idle"])
    known = found[found["value"].notna()]
    effort = known[known["feature"] == "effort"]
    idle = known[known["feature"] == "idle"]
    assert effort["value"].is_monotonic_increasing
    assert effort["mean_risk"].iloc[0] > effort["mean_risk"].iloc[-1] + 0.4
    assert np.ptp(idle["mean_risk"]) < 0.1


def test_everybody_gets_the_value_and_keeps_the_rest(
    artifact: Artifact, points: Points
) -> None:
    """Recomputed by hand with the model's own prediction."""
    found = partial_dependence(artifact, points, ["effort"])
    row = found.iloc[3]
    step = -(-len(points) // SAMPLE_ROWS)
    changed = points.features[::step].assign(effort=row["value"])
    rows = encode(changed, artifact.contract)
    risk = artifact.model.inplace_predict(rows)
    assert row["rows"] == len(rows)
    assert row["mean_risk"] == pytest.approx(float(risk.mean()), abs=1e-6)


def test_text_has_a_value_per_category_and_missing_comes_last(
    artifact: Artifact, points: Points
) -> None:
    found = partial_dependence(artifact, points, ["kind", "effort"])
    kind = found[found["feature"] == "kind"]
    assert kind["category"].tolist() == ["exam", "quiz"]
    assert kind["mean_risk"].iloc[0] > kind["mean_risk"].iloc[1] + 0.1
    last = found[found["feature"] == "effort"].iloc[-1]
    assert pd.isna(last["value"]) and last["category"] is None
    assert found["place"].tolist() == [1, 2, *range(1, len(found) - 1)]


def test_features_that_the_model_does_not_know_are_passed_over(
    artifact: Artifact, points: Points
) -> None:
    assert partial_dependence(artifact, points, ["unknown"]).empty
