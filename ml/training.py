"""One training: search, fit, calibrate, evaluate once. Nothing is read or written."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pandas as pd
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from ml import registry
from ml.baselines import BASELINES, all_scores
from ml.boosting import (
    SEARCH_BINS,
    contributions,
    fit,
    margins,
    plain_matrix,
    total_gains,
    training_matrix,
)
from ml.calibrate import choose_bands, fit_calibration
from ml.cli import console
from ml.dataset import FOLDS, KEY, Points, Split
from ml.evaluate import (
    POOLED,
    Verdict,
    calibration_curve,
    evaluate,
    judge,
    threshold_metrics,
)
from ml.explain import importance_table
from ml.features import FeatureContract, encode, learn_contract
from ml.registry import Artifact, RunInputs
from ml.search import CANDIDATES, SearchResult, bin_folds, run_search

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
    split: Split, inputs: RunInputs, fixed: dict[str, float], headline: int
) -> Trained:
    """Search, fit, calibrate, and evaluate once."""
    contract = learn_contract(split.search.features, split.search.kinds)
    found = _search(split.search, contract, fixed)
    artifact = _fit_winner(split, contract, found, inputs)
    log.info("Evaluating on %s points of the test period.", len(split.test))
    predictions = predict_test(artifact, split)
    metrics = evaluate(predictions)
    verdict = judge(metrics, headline)
    tables = {
        "ml.evaluation_predictions": predictions,
        "ml.model_metrics": pd.concat(
            [metrics, _other_metrics(artifact, split, found)], ignore_index=True
        ),
        "ml.feature_importance": _importance(artifact, split.test),
        "ml.calibration_curve": _calibration_curves(artifact, split, predictions),
        "ml.threshold_metrics": _thresholds(predictions),
        "ml.search_results": found.table,
    }
    run_id = artifact.run_id
    return Trained(
        artifact,
        verdict,
        {name: table.assign(run_id=run_id) for name, table in tables.items()},
    )


def _search(
    points: Points, contract: FeatureContract, fixed: dict[str, float]
) -> SearchResult:
    rows = encode(points.features, contract)
    with _progress("Search", CANDIDATES * FOLDS) as on_fit:
        return run_search(rows, points.labels, points.students, contract, fixed, on_fit)


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr, and the function that moves it on."""
    columns = (
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=total)
        yield lambda: bar.advance(task)


def _fit_winner(
    split: Split, contract: FeatureContract, found: SearchResult, inputs: RunInputs
) -> Artifact:
    rows = encode(split.search.features, contract)
    model = fit(training_matrix(rows, split.search.labels, contract), found.parameters)
    held_out = plain_matrix(encode(split.calibration.features, contract), contract)
    raw = margins(model, held_out)
    labels = split.calibration.labels
    calibration = fit_calibration(raw, labels, split.calibration.students)
    return Artifact(
        run_id=inputs.run_id,
        model=model,
        fold_models=found.fold_models,
        contract=contract,
        calibration=calibration,
        bands=choose_bands(calibration.apply(raw), labels),
        parameters=found.parameters,
        inputs=inputs,
    )


def predict(artifact: Artifact, points: Points) -> np.ndarray:
    """Calibrated probabilities of the final model."""
    matrix = plain_matrix(encode(points.features, artifact.contract), artifact.contract)
    return artifact.calibration.apply(margins(artifact.model, matrix))


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
    baselines = all_scores(split.search, split.test)
    return targets[columns].assign(
        run_began_in_test=started >= pd.Timestamp(split.test_from),
        risk_score=predict(artifact, split.test),
        **{f"baseline_{name}": baselines[name] for name in BASELINES},
    )


def _other_metrics(
    artifact: Artifact, split: Split, found: SearchResult
) -> pd.DataFrame:
    """What the search and the calibration saw, beside the test's figures."""
    search, calibration = split.search.labels, split.calibration.labels
    held_out = artifact.calibration.held_out_brier[artifact.calibration.method]
    rows = [
        ("search", "pr_auc", found.best_score, search),
        ("search", "base_rate", float(search.mean()), search),
        ("calibration", "brier", held_out, calibration),
        ("calibration", "base_rate", float(calibration.mean()), calibration),
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
            "rows": len(labels),
            "positives": int(labels.sum()),
        }
        for name, metric, value, labels in rows
    )


def _importance(artifact: Artifact, test: Points) -> pd.DataFrame:
    """Over evenly spaced rows of the test period where it is a large one."""
    step = max(1, -(-len(test) // IMPORTANCE_ROWS))
    sample = test.take(np.arange(len(test)) % step == 0)
    rows = encode(sample.features, artifact.contract)
    values = contributions(artifact.model, plain_matrix(rows, artifact.contract))
    gains = total_gains(artifact.model)
    return importance_table(values[:, :-1], gains, artifact.contract)


def _calibration_curves(
    artifact: Artifact, split: Split, predictions: pd.DataFrame
) -> pd.DataFrame:
    usual = predictions[~predictions["contacted_before_due"]]
    calibration = split.calibration
    return pd.concat(
        [
            calibration_curve(
                usual["at_risk"].to_numpy(dtype=int),
                usual["risk_score"].to_numpy(),
                usual["lead_days"].to_numpy(),
                "test",
            ),
            calibration_curve(
                calibration.labels,
                predict(artifact, calibration),
                calibration.targets["lead_days"].to_numpy(),
                "calibration",
            ),
        ],
        ignore_index=True,
    )


def _thresholds(predictions: pd.DataFrame) -> pd.DataFrame:
    usual = predictions[~predictions["contacted_before_due"]]
    return threshold_metrics(
        usual["at_risk"].to_numpy(dtype=int),
        usual["risk_score"].to_numpy(),
        usual["lead_days"].to_numpy(),
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
        settings=parent.inputs.settings | {"refit_of": parent.run_id},
    )
    rows = encode(known.features, contract)
    log.info("Refitting on %s points.", len(known))
    folds = bin_folds(rows, known.labels, known.students, contract)
    artifact = replace(
        parent,
        run_id=inputs.run_id,
        inputs=inputs,
        contract=contract,
        model=fit(training_matrix(rows, known.labels, contract), parent.parameters),
        fold_models=[fit(fold.train, parent.parameters, SEARCH_BINS) for fold in folds],
    )
    return Refitted(artifact, parent.run_id, len(known))
