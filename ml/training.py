"""One training: search, fit, calibrate, evaluate once. Nothing is read or written."""

import logging
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import xgboost as xgb

from ml import registry
from ml.baselines import BASELINES, all_scores
from ml.boosting import (
    contributions,
    fit,
    margins,
    plain_matrix,
    total_gains,
    training_matrix,
)
from ml.calibrate import NONE, Scored, choose_bands, confidence, fit_calibration
from ml.cli import progress
from ml.dataset import FOLDS, KEY, Points, Split, replay_split
from ml.dependence import FEATURES, partial_dependence
from ml.evaluate import (
    POOLED,
    Verdict,
    calibration_curve,
    evaluate,
    judge,
)
from ml.explain import importance_table
from ml.features import FeatureContract, encode, learn_contract
from ml.registry import Artifact, RunInputs
from ml.scorer import all_probabilities
from ml.search import CANDIDATES, SearchResult, fit_folds, run_search

# TreeSHAP over a whole test period would take longer than the search.
IMPORTANCE_ROWS = 5000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A model with everything that its training found, by table."""

    artifact: Artifact
    verdict: Verdict
    tables: dict[str, pd.DataFrame]


def train_model(
    split: Split,
    inputs: RunInputs,
    fixed: dict[str, float],
    headline: int,
    candidates: int = CANDIDATES,
) -> Trained:
    """Search, fit, calibrate, and evaluate once."""
    contract = learn_contract(split.known.features, split.known.kinds)
    found = _search(split.search, contract, fixed, candidates)
    search_model = _fit(split.search, contract, found.parameters)
    artifact = _fit_winner(split, contract, found, search_model, inputs)
    log.info("Evaluating on %s points of the test period.", len(split.test))
    predictions = predict_test(artifact, split)
    metrics = evaluate(predictions)
    verdict = judge(metrics, headline)
    importance = measure_importance(artifact, split.test)
    others = other_metrics(
        artifact,
        found,
        search=_count(split.search.labels),
        calibration=_count(split.calibration.labels),
    )
    tables = {
        "ml.evaluation_predictions": predictions,
        "ml.model_metrics": pd.concat([metrics, others], ignore_index=True),
        "ml.feature_importance": importance,
        "ml.partial_dependence": partial_dependence(
            artifact, split.test, importance["feature"].head(FEATURES).tolist()
        ),
        "ml.calibration_curve": _calibration_curves(
            artifact, search_model, split, predictions
        ),
        "ml.search_results": found.table,
    }
    run_id = artifact.run_id
    return Trained(
        artifact,
        verdict,
        {name: table.assign(run_id=run_id) for name, table in tables.items()},
    )


def _search(
    points: Points,
    contract: FeatureContract,
    fixed: dict[str, float],
    candidates: int,
) -> SearchResult:
    rows = encode(points.features, contract)
    with progress("Search", candidates * FOLDS) as on_fit:
        return run_search(
            rows,
            points.labels,
            points.students,
            contract,
            fixed,
            on_fit,
            candidates=candidates,
        )


def _fit(
    points: Points, contract: FeatureContract, parameters: dict[str, Any]
) -> xgb.Booster:
    rows = encode(points.features, contract)
    return fit(training_matrix(rows, points.labels, contract), parameters)


def _fit_folds(
    points: Points, contract: FeatureContract, parameters: dict[str, Any]
) -> list[xgb.Booster]:
    rows = encode(points.features, contract)
    return fit_folds(rows, points.labels, points.students, contract, parameters)


def _score_with(
    model: xgb.Booster, contract: FeatureContract, points: Points
) -> Scored:
    raw = margins(model, plain_matrix(encode(points.features, contract), contract))
    return Scored(raw, points.labels, points.students)


def _fit_winner(
    split: Split,
    contract: FeatureContract,
    found: SearchResult,
    search_model: xgb.Booster,
    inputs: RunInputs,
) -> Artifact:
    """Calibrate the search period's model, then train on all that was known.

    The map and the bands come from a model that is older than the calibration period;
    the final model has the same parameters and the newest points on top.
    """
    later = _score_with(search_model, contract, split.calibration)
    weight = float(found.parameters.get("scale_pos_weight", 1))
    calibration = fit_calibration(
        later, _replay(split, contract, found.parameters), weight
    )
    log.info(
        "Fitting on %s points, calibration: %s.", len(split.known), calibration.method
    )
    return Artifact(
        run_id=inputs.run_id,
        model=_fit(split.known, contract, found.parameters),
        fold_models=_fit_folds(split.search, contract, found.parameters),
        contract=contract,
        calibration=calibration,
        bands=choose_bands(calibration.apply(later.margins), later.labels),
        parameters=found.parameters,
        inputs=inputs,
    )


def _replay(
    split: Split, contract: FeatureContract, parameters: dict[str, Any]
) -> tuple[Scored, Scored] | None:
    """How calibration would have gone one period earlier, if there was one."""
    earlier = replay_split(split)
    if earlier is None:
        return None
    model = _fit(earlier.search, contract, parameters)
    return (
        _score_with(model, contract, earlier.calibration),
        _score_with(model, contract, earlier.test),
    )


def predict_test(artifact: Artifact, split: Split) -> pd.DataFrame:
    """Rows of `evaluation_predictions` without run_id: the one look at the test."""
    targets = split.test.targets
    started = targets["run_started_at"]
    columns = [
        *KEY,
        "course_run_id",
        "lead_days",
        "is_first_sitting",
        "contacted_before_due",
        "at_risk",
    ]
    baselines = all_scores(split.known, split.test)
    matrix = plain_matrix(
        encode(split.test.features, artifact.contract), artifact.contract
    )
    probabilities = all_probabilities(artifact, matrix)
    return targets[columns].assign(
        run_began_in_test=started >= pd.Timestamp(split.test_from),
        risk_score=probabilities[:, 0],
        confidence=confidence(probabilities),
        **{f"baseline_{name}": baselines[name] for name in BASELINES},
    )


@dataclass(frozen=True)
class Count:
    """Points of a part, and failing ones among them."""

    rows: int
    positives: int

    @property
    def base_rate(self) -> float:
        """The failing share."""
        return self.positives / self.rows


def _count(labels: np.ndarray) -> Count:
    return Count(len(labels), int(labels.sum()))


def other_metrics(
    artifact: Artifact, found: SearchResult, search: Count, calibration: Count
) -> pd.DataFrame:
    """What the search and the calibration saw, beside the test's figures."""
    held_out = artifact.calibration.held_out_brier[artifact.calibration.method]
    rows = [
        ("search", "pr_auc", found.best_score, search),
        ("search", "base_rate", search.base_rate, search),
        ("calibration", "brier", held_out, calibration),
        ("calibration", "base_rate", calibration.base_rate, calibration),
    ]
    return pd.DataFrame(
        {
            "split": name,
            "lead_days": POOLED,
            "segment": "all",
            "scorer": "model",
            "metric": metric,
            "value": value,
            "ci_low": np.nan,
            "ci_high": np.nan,
            "rows": part.rows,
            "positives": part.positives,
        }
        for name, metric, value, part in rows
    )


def measure_importance(artifact: Artifact, test: Points) -> pd.DataFrame:
    """Rows of `feature_importance`, over evenly spaced ones of many test points."""
    step = max(1, -(-len(test) // IMPORTANCE_ROWS))
    sample = test.take(np.arange(len(test)) % step == 0)
    rows = encode(sample.features, artifact.contract)
    values = contributions(artifact.model, plain_matrix(rows, artifact.contract))
    gains = total_gains(artifact.model)
    return importance_table(values[:, :-1], gains, artifact.contract)


def _calibration_curves(
    artifact: Artifact,
    search_model: xgb.Booster,
    split: Split,
    predictions: pd.DataFrame,
) -> pd.DataFrame:
    calibration = split.calibration
    raw = _score_with(search_model, artifact.contract, calibration).margins
    held_out = calibration.targets[["course_id", "lead_days"]].assign(
        at_risk=calibration.labels, risk_score=artifact.calibration.apply(raw)
    )
    return calibration_curves(artifact, held_out, predictions)


def calibration_curves(
    artifact: Artifact, held_out: pd.DataFrame, predictions: pd.DataFrame
) -> pd.DataFrame:
    """Rows of `calibration_curve`, of the test and of the calibration period.

    Parameters
    ----------
    held_out
        Points of the calibration period, scored by a model that had not seen them.
    predictions
        Rows of `evaluation_predictions`.
    """
    usual = predictions[~predictions["contacted_before_due"]]
    # A map that was fitted on these points cannot be judged by them.
    fitted = artifact.calibration.method != NONE
    split_name = "calibration_in_sample" if fitted else "calibration"
    return pd.concat(
        [
            calibration_curve(usual, "test"),
            calibration_curve(held_out, split_name),
        ],
        ignore_index=True,
    )


# ---------------------------------------------------------------- refit


@dataclass(frozen=True)
class Refitted:
    """A model trained again on more, with the parameters of its parent run."""

    artifact: Artifact
    parent: str
    rows: int


def refit(parent: Artifact, points: Points, as_of_date: date) -> Refitted:
    """Train the parent's parameters again on every label known before `as_of_date`.

    Calibration and bands stay the parent's: no later period is left to fit them on.
    """
    known = points.take(
        points.targets["is_training_point"]
        & (points.targets["label_status"] == "matured")
        & (points.targets["label_known_at"] < pd.Timestamp(as_of_date))
    )
    contract = learn_contract(known.features, known.kinds)
    inputs = replace(
        parent.inputs,
        data_fingerprint=registry.fingerprint_points(known),
        settings=parent.inputs.settings
        | {"refit_of": parent.run_id, "refit_before": as_of_date.isoformat()},
    )
    rows = encode(known.features, contract)
    log.info("Refitting on %s points.", len(known))
    artifact = replace(
        parent,
        run_id=inputs.run_id,
        inputs=inputs,
        contract=contract,
        model=fit(training_matrix(rows, known.labels, contract), parent.parameters),
        fold_models=_fit_folds(known, contract, parent.parameters),
    )
    return Refitted(artifact, parent.run_id, len(known))
