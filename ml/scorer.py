"""What a batch of points becomes: scores and reasons, the same on every engine.

Each point is scored alone, so that it does not matter which others are in its batch.
What depends on all points comes from outside (the middle value of each feature) or is
left to the engine (the rank).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
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
from ml.warehouse import find_handback_table

SCORES = "ml.student_scores"
REASONS = "ml.score_reasons"
# Rows of a batch: memory grows with them, and beyond this number nothing is gained.
BATCH_ROWS = 16_384
# What is handed through from the points to the scores.
POINT_COLUMNS = [*KEY, "course_run_id", "due_at", "lead_days"]
# Of equal risks the one with more missed assessments comes first.
MISSED = "record_assessments_missed"
# The order of `risk_rank` from 1, as SQL has it.
RANK = f"risk_score desc, missed desc, {', '.join(KEY)}"


def score_schema() -> pa.Schema:
    """`student_scores` with `missed`, which breaks ties, in place of what comes last:
    `risk_rank` and `scored_at`."""
    fields = find_handback_table(SCORES).arrow_schema
    kept = [field for field in fields if field.name not in ("risk_rank", "scored_at")]
    return pa.schema([*kept, pa.field("missed", pa.float64())])


def reason_schema() -> pa.Schema:
    """`score_reasons` as it is."""
    return find_handback_table(REASONS).arrow_schema


@dataclass(frozen=True)
class Predicted:
    """Points with what the models say of them, not yet in words."""

    points: pa.Table
    features: pd.DataFrame
    probabilities: np.ndarray
    contributions: np.ndarray


@dataclass(frozen=True)
class Scorer:
    """A model and all that it takes to score points and to say why.

    `medians` holds the middle value of each feature among all points of the day. It
    reads no file once it is made: an executor has none.
    """

    artifact: Artifact
    docs: dict[str, FeatureDoc]
    medians: dict[str, float]
    window_days: int
    threads: int = CORES
    score_schema: pa.Schema = field(default_factory=score_schema)
    reason_schema: pa.Schema = field(default_factory=reason_schema)

    def predict(self, points: pa.RecordBatch) -> Predicted:
        """Ask the models.

        Parameters
        ----------
        points
            `POINT_COLUMNS`, and `feature_column(name)` of each feature of the model:
            text for a category, else a double.
        """
        table = pa.Table.from_batches([points])
        contract = self.artifact.contract
        chosen = table.select([feature_column(name) for name in contract.names])
        features = chosen.rename_columns(contract.names).to_pandas()
        matrix = plain_matrix(encode(features, contract), contract, self.threads)
        return Predicted(
            table,
            features,
            all_probabilities(self.artifact, matrix, self.threads),
            contributions(self.artifact.model, matrix, self.threads)[:, :-1],
        )

    def scores(self, predicted: Predicted) -> pa.Table:
        """Rows as `score_schema` has them."""
        risk = predicted.probabilities[:, 0]
        features = predicted.features
        missed = features[MISSED].fillna(-1) if MISSED in features else 0
        added = {
            "risk_score": risk,
            "risk_band": self.artifact.bands.name(risk),
            "confidence": confidence(predicted.probabilities),
            "missed": np.broadcast_to(missed, len(risk)).astype(np.float64),
        }
        arrays = {name: pa.array(values) for name, values in added.items()}
        return self._rows(predicted.points, arrays.items(), self.score_schema)

    def reasons(self, predicted: Predicted) -> pa.Table:
        """Rows as `reason_schema` has them."""
        told = self.told(predicted)
        keys = predicted.points.select(KEY).take(told["point"])
        columns = zip(told.column_names, told.columns, strict=True)
        return self._rows(keys, columns, self.reason_schema)

    def told(self, predicted: Predicted) -> pa.Table:
        """The reasons with `point`, the place of theirs in the batch, for a key."""
        return tell_reasons(
            predicted.contributions,
            predicted.features,
            self.artifact.contract,
            self.docs,
            self.medians,
            self.window_days,
        )

    def _rows(
        self, points: pa.Table, added: Iterable[tuple[str, Any]], schema: pa.Schema
    ) -> pa.Table:
        run_id = pa.repeat(pa.scalar(self.artifact.run_id), len(points))
        columns = dict(zip(points.column_names, points.columns, strict=True))
        columns |= {"run_id": run_id, **dict(added)}
        return pa.table({name: columns[name] for name in schema.names}).cast(schema)


def all_probabilities(
    artifact: Artifact, matrix: Any, threads: int = CORES
) -> np.ndarray:
    """Calibrated probabilities of the model (first column) and the fold models."""
    models = [artifact.model, *artifact.fold_models]
    calibrate = artifact.calibration.apply
    return np.column_stack(
        [calibrate(margins(model, matrix, threads)) for model in models]
    )


def median_query(points: str, column: str) -> str:
    """A query for the middle value of a column: of two, the number between them.

    It counts values, because then what does not fit in memory can go to disk.
    """
    return (
        f'with counted as (select "{column}" as value, count(*) as points from {points}'
        f' where "{column}" is not null group by "{column}"), placed as (select value,'
        " sum(points) over (order by value rows unbounded preceding) as upto,"
        " sum(points) over () as total from counted)"
        " select (min(value) filter (where 2 * upto >= total)"
        " + min(value) filter (where 2 * upto > total)) / 2 from placed"
    )
