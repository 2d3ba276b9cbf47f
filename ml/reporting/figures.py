"""The arithmetic behind the pictures: pure functions of labels, scores and columns."""

import numpy as np
import pandas as pd

CURVE_POINTS = 200
BINS = 20
WHOLE_NUMBERS = 20


def curve(labels: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """Recall, precision and false positive rate when cutting at each distinct score.

    From the highest score down; ties are taken together, and a long curve is thinned
    evenly (its last point stays).

    Returns
    -------
    pandas.DataFrame
        Columns recall, precision, false_positive_rate; empty with one class only.
    """
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return pd.DataFrame(columns=["recall", "precision", "false_positive_rate"])
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    hits = np.cumsum(labels[order])[ends]
    frame = pd.DataFrame(
        {
            "recall": hits / positives,
            "precision": hits / (ends + 1),
            "false_positive_rate": (ends + 1 - hits) / negatives,
        }
    )
    chosen = np.unique(
        np.linspace(0, len(frame) - 1, min(CURVE_POINTS, len(frame))).round()
    )
    return frame.iloc[chosen.astype(int)].reset_index(drop=True)


def flagged_weights(scores: np.ndarray, flags: int) -> np.ndarray:
    """How much of each point is flagged when the `flags` highest scores are.

    1, 0, or an equal share for all points of a tie that lies across the cut.
    """
    if flags <= 0 or not len(scores):
        return np.zeros(len(scores))
    cut = np.sort(scores)[::-1][min(flags, len(scores)) - 1]
    above, at = scores > cut, scores == cut
    share = (flags - above.sum()) / at.sum()
    return above + np.clip(share, 0, 1) * at


def group_shares(
    values: pd.Series, outcome: pd.Series
) -> tuple[np.ndarray, dict[str, np.ndarray]] | None:
    """Edges of bins, and the share of each outcome's points in every bin.

    Whole numbers with few values get a bin each; otherwise equal bins lie between
    the 1st and 99th percentile, and what is beyond counts in the outermost.

    Returns
    -------
    tuple or None
        None where fewer than two different values are known.
    """
    seen = values.astype(float).replace([np.inf, -np.inf], np.nan)
    given = seen.dropna()
    if given.nunique() < 2:
        return None
    low, high = np.percentile(given, [1, 99])
    if low == high:
        low, high = float(given.min()), float(given.max())
    if (given == given.round()).all() and high - low < WHOLE_NUMBERS:
        edges = np.arange(low - 0.5, high + 1)
    else:
        edges = np.linspace(low, high, BINS + 1)
    groups = {}
    for name, label in (("failed", 1), ("passed", 0)):
        part = seen[outcome == label].dropna().clip(edges[0], edges[-1])
        counts = np.histogram(part, edges)[0]
        groups[name] = counts / max(1, counts.sum())
    return edges, groups


def rank_correlations(frame: pd.DataFrame) -> pd.DataFrame:
    """Correlation of ranks for every pair of columns, each over the rows known to
    both; NaN where a column is constant."""
    return frame.rank().corr(min_periods=30)


def top_pairs(correlations: pd.DataFrame, pairs: int) -> list[tuple[str, str, float]]:
    """The pairs of different columns with the strongest correlation, either sign."""
    names = list(correlations.columns)
    values = correlations.to_numpy()
    found = [
        (names[first], names[second], float(values[first, second]))
        for first in range(len(names))
        for second in range(first + 1, len(names))
        if not np.isnan(values[first, second])
    ]
    return sorted(found, key=lambda pair: (-abs(pair[2]), pair[0], pair[1]))[:pairs]


def number_columns(frame: pd.DataFrame) -> list[str]:
    """Columns that hold numbers or booleans."""
    return [
        name
        for name in frame.columns
        if pd.api.types.is_numeric_dtype(frame[name])
        or pd.api.types.is_bool_dtype(frame[name])
    ]
