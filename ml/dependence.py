"""How the risk moves with one feature, all others as they are."""

import numpy as np
import pandas as pd

from ml.boosting import margins, plain_matrix
from ml.dataset import Points
from ml.features import CATEGORY, encode
from ml.registry import Artifact

FEATURES = 8
SAMPLE_ROWS = 1000
PLACES = np.linspace(0.05, 0.95, 10)
COLUMNS = ["feature", "place", "value", "category", "mean_risk", "rows"]


def partial_dependence(
    artifact: Artifact, points: Points, features: list[str]
) -> pd.DataFrame:
    """Mean calibrated risk with a feature set to one value for everybody.

    Partial dependence after Friedman (2001), Greedy Function Approximation, 8.2. It
    asks the model about students that may not exist where features hang together, and
    says nothing of causes.

    Parameters
    ----------
    points
        At most `SAMPLE_ROWS` of them are used, evenly spaced.
    features
        Names of the artifact's contract, in the order of the answer.

    Returns
    -------
    pandas.DataFrame
        Rows of `ml.partial_dependence` without run_id: for numbers the twentieths
        of their distribution from 5 to 95 %, for text each category, and a last row
        with neither value nor category for "not known" where that occurs.
    """
    step = max(1, -(-len(points) // SAMPLE_ROWS))
    sample = points.take(np.arange(len(points)) % step == 0)
    rows = encode(sample.features, artifact.contract)
    found = [
        _of_feature(artifact, rows, name)
        for name in features
        if name in artifact.contract.kinds
    ]
    if not found:
        return pd.DataFrame(columns=COLUMNS)
    return pd.concat(found, ignore_index=True)[COLUMNS]


def _of_feature(artifact: Artifact, rows: np.ndarray, name: str) -> pd.DataFrame:
    column = artifact.contract.names.index(name)
    grid = _grid(rows[:, column], artifact.contract.kinds[name])
    risks = []
    for value in grid:
        changed = rows.copy()
        changed[:, column] = value
        raw = margins(artifact.model, plain_matrix(changed, artifact.contract))
        risks.append(float(artifact.calibration.apply(raw).mean()))
    is_text = artifact.contract.kinds[name] == CATEGORY
    names = artifact.contract.categories.get(name, [])
    return pd.DataFrame(
        {
            "feature": name,
            "place": range(1, len(grid) + 1),
            "value": [np.nan if is_text else float(value) for value in grid],
            "category": [
                names[int(value)] if is_text and not np.isnan(value) else None
                for value in grid
            ],
            "mean_risk": risks,
            "rows": len(rows),
        }
    )


def _grid(values: np.ndarray, kind: str) -> np.ndarray:
    """What the feature is set to; missing comes last."""
    known = values[~np.isnan(values)]
    grid = np.unique(known) if kind == CATEGORY else _twentieths(known)
    return np.append(grid, np.nan) if len(known) < len(values) else grid


def _twentieths(known: np.ndarray) -> np.ndarray:
    # Values that occur, not means of two of them.
    return (
        np.unique(np.quantile(known, PLACES, method="lower")) if len(known) else known
    )
