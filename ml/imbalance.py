"""Ways to make a model care for the rarer outcome, side by side.

All but the winner have XGBoost's own defaults and differ only in scale_pos_weight:

- `ratio`: passing points per failing one, cut at a probability of 0.5
- `third_of_ratio`: a third of that, cut at 0.5
- `tuned_threshold`: 1, cut where F1 is best on the calibration period
- `winner`: the run's model, cut where its F1 is best on the calibration period

Trained on what was known before the test period and measured on it, at the headline
lead; thresholds come from models that have not seen the calibration period.
"""

import numpy as np
from scipy.special import expit

from ml.calibrate import choose_bands
from ml.metrics import Resamples
from ml.refits import (
    Figures,
    Ground,
    Refit,
    Row,
    Study,
    constant,
    draw_for,
    has_both,
    metric_rows,
    ranked,
    too_few,
)

# What XGBClassifier() has, in XGBoost's names; the rest is XGBoost's default.
PLAIN = {"n_estimators": 100, "max_depth": 6, "learning_rate": 0.3}


def imbalance(ground: Ground) -> Study | str:
    """The three plain models and their figures beside the winner's; or why not."""
    test = ground.judged("test", ground.headline)
    if not has_both(ground.points, test):
        return too_few(f"the test period at lead {ground.headline}")
    known, kinds = ground.split.is_known, ground.artifact.contract.kinds
    failing = float(ground.points.labels[known].mean())
    ratio = (1 - failing) / failing
    weights = {"ratio": ratio, "third_of_ratio": ratio / 3, "tuned_threshold": 1.0}
    refits = {
        name: Refit(
            ground.points, known, test, kinds, {**PLAIN, "scale_pos_weight": weight}
        )
        for name, weight in weights.items()
    }
    # A threshold is tuned on points that its model has not seen.
    search, calibration = (
        ground.split.part == part for part in ("search", "calibration")
    )
    unweighted = refits["tuned_threshold"].parameters
    refits["to_tune"] = Refit(ground.points, search, calibration, kinds, unweighted)

    def measure(scores: dict[str, np.ndarray]) -> list[Row]:
        labels = ground.points.labels
        artifact = ground.artifact
        tuned = choose_bands(expit(scores["to_tune"][calibration]), labels[calibration])
        cuts = {
            "ratio": 0.5,
            "third_of_ratio": 0.5,
            "tuned_threshold": tuned.best_f1_threshold,
            "winner": artifact.bands.best_f1_threshold,
        }
        risks = {name: expit(scores[name][test]) for name in weights}
        risks["winner"] = artifact.calibration.apply(ground.margins[test])
        return _imbalance_rows(ground, test, risks, cuts)

    return Study("imbalance", refits, measure)


def _imbalance_rows(
    ground: Ground,
    test: np.ndarray,
    risks: dict[str, np.ndarray],
    cuts: dict[str, float],
) -> list[Row]:
    labels, draws = ground.points.labels[test], draw_for(ground.points, test)
    figures = {name: ranked(labels, risk, draws) for name, risk in risks.items()}
    found = []
    for name, own in figures.items():
        own |= _cut_figures(labels, risks[name] >= cuts[name], draws)
        own["threshold"] = constant(cuts[name])
        if name != "winner":
            own["pr_auc_minus_winner"] = own["pr_auc"] - figures["winner"]["pr_auc"]
        found += metric_rows(own, ground.headline, name, labels)
    return found


def _cut_figures(labels: np.ndarray, flagged: np.ndarray, draws: Resamples) -> Figures:
    """Precision, recall and F1 of a cut; NaN where nobody is flagged, or fails."""
    right = draws.totals((flagged & (labels == 1)).astype(float))
    flags = draws.totals(flagged.astype(float))
    failing = draws.totals(labels.astype(float))
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "precision": right / flags,
            "recall": right / failing,
            "f1": 2 * right / (flags + failing),
        }
