"""What a batch of points becomes: scores and reasons, the same on every engine.

Each point is scored alone, so that it does not matter which others are in its batch.
What depends on all points comes from outside (the middle value of each feature) or is
left to the engine (the rank).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ml.boosting import CORES, contributions, margins, plain_matrix
from ml.calibrate import confidence
from ml.dataset import KEY, feature_column
from ml.explain import FeatureDoc, tell_reasons
from ml.features import encode
from ml.registry import Artifact

# Rows of a batch: memory grows with them, and beyond this number nothing is gained.
BATCH_ROWS = 16_384
# Of equal risks the one with more missed assessments comes first.
MISSED = "record_assessments_missed"
# The order of `risk_rank` from 1, as SQL has it.
RANK = f"risk_score desc, missed desc, {', '.join(KEY)}"
# What is handed through from the points to the scores.
POINT_COLUMNS = [*KEY, "course_run_id", "due_at", "lead_days"]


@dataclass(frozen=True)
class Scorer:
    """A model and all that it takes to score points and to say why.

    `medians` holds the middle value of each feature among all points of the day.
    """

    artifact: Artifact
    docs: dict[str, FeatureDoc]
    medians: dict[str, float]
    window_days: int
    threads: int = CORES

    def score(self, points: pa.RecordBatch) -> tuple[pa.Table, pa.Table]:
        """Rows of `student_scores` and of `score_reasons`.

        The scores have `missed`, which breaks ties, in place of `risk_rank` and
        `scored_at`.

        Parameters
        ----------
        points
            `POINT_COLUMNS`, and `feature_column(name)` of each feature of the model:
            text for a category, else a double.
        """
        table = pa.Table.from_batches([points])
        features = self._features(table)
        contract = self.artifact.contract
        matrix = plain_matrix(encode(features, contract), contract, self.threads)
        probabilities = all_probabilities(self.artifact, matrix, self.threads)
        reasons = tell_reasons(
            contributions(self.artifact.model, matrix, self.threads)[:, :-1],
            features,
            contract,
            self.docs,
            self.medians,
            self.window_days,
        )
        return self._scores(table, features, probabilities), self._keyed(table, reasons)

    def _features(self, table: pa.Table) -> pd.DataFrame:
        names = self.artifact.contract.names
        chosen = table.select([feature_column(name) for name in names])
        return chosen.rename_columns(names).to_pandas()

    def _scores(
        self, table: pa.Table, features: pd.DataFrame, probabilities: np.ndarray
    ) -> pa.Table:
        risk = probabilities[:, 0]
        missed = features[MISSED].fillna(-1) if MISSED in features else 0
        added = {
            "risk_score": risk,
            "risk_band": self.artifact.bands.name(risk),
            "confidence": confidence(probabilities),
            "missed": np.broadcast_to(missed, len(risk)).astype(np.float64),
        }
        return self._of_run(_with_columns(table.select(POINT_COLUMNS), added))

    def _keyed(self, table: pa.Table, reasons: pa.Table) -> pa.Table:
        keys = table.select(KEY).take(reasons["point"])
        told = reasons.drop_columns(["point"])
        columns = zip(told.column_names, told.columns, strict=True)
        return self._of_run(_with_columns(keys, dict(columns)))

    def _of_run(self, rows: pa.Table) -> pa.Table:
        run_id = pa.repeat(pa.scalar(self.artifact.run_id), len(rows))
        return rows.add_column(0, "run_id", run_id)


def _with_columns(table: pa.Table, added: dict[str, Any]) -> pa.Table:
    for name, values in added.items():
        arrow = isinstance(values, (pa.Array, pa.ChunkedArray))
        table = table.append_column(name, values if arrow else pa.array(values))
    return table


def all_probabilities(
    artifact: Artifact, matrix: Any, threads: int = CORES
) -> np.ndarray:
    """Calibrated probabilities of the model (first column) and the fold models."""
    models: Sequence[Any] = [artifact.model, *artifact.fold_models]
    return np.column_stack(
        [
            artifact.calibration.apply(margins(model, matrix, threads))
            for model in models
        ]
    )


def median_query(points: str, name: str) -> str:
    """A query for the middle value of a feature: of two, the number between them.

    It counts values, because then what does not fit in memory can go to disk.
    """
    return (
        f'with counted as (select "{feature_column(name)}" as value, count(*) as points'
        f' from {points} group by "{feature_column(name)}"), placed as ('
        "select value, sum(points) over (order by value rows unbounded preceding)"
        " as upto, sum(points) over () as total from counted where value is not null)"
        " select (min(value) filter (where 2 * upto >= total)"
        " + min(value) filter (where 2 * upto > total)) / 2 from placed"
    )
