"""What is recorded of a run, and what is told of it, whatever engine it ran on."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from ml.baselines import BASELINES
from ml.boosting import SEED
from ml.dataset import Sizes
from ml.registry import Artifact
from ml.settings import Settings


@dataclass(frozen=True)
class Report:
    """What a command has to tell at its end."""

    run: dict[str, Any]
    metrics: pd.DataFrame
    scored: dict[str, int]
    headline: int


def run_settings(settings: Settings, sizes: Sizes, candidates: int) -> dict[str, Any]:
    """The settings that decide a model."""
    return {
        "source_system": settings.source_system,
        "target_definition": settings.target_definition,
        "observation_window_days": settings.observation_window_days,
        "prediction_leads": settings.leads_text,
        "include_attributes": settings.include_attributes,
        "test_from": sizes.test_from.isoformat(),
        "calibration_from": sizes.calibration_from.isoformat(),
        "fixed_parameters": settings.fixed_parameters,
        "candidates": candidates,
    }


def run_row(
    artifact: Artifact,
    sizes: Sizes,
    status: str,
    reason: str,
    created_at: datetime,
    versions: dict[str, str],
) -> dict[str, Any]:
    """The row of `model_runs` of a run that was trained on parts of these sizes."""
    inputs = artifact.inputs
    settings = inputs.settings
    return {
        "run_id": artifact.run_id,
        "source_system": settings["source_system"],
        "target_definition": settings["target_definition"],
        "status": status,
        "status_reason": reason,
        "data_fingerprint": inputs.data_fingerprint,
        "code_fingerprint": inputs.code_fingerprint,
        "feature_fingerprint": inputs.feature_fingerprint,
        "parameters": json.dumps(artifact.parameters, sort_keys=True),
        "settings": json.dumps(settings, sort_keys=True),
        "versions": json.dumps(versions, sort_keys=True),
        "seed": SEED,
        "test_from": sizes.test_from,
        "train_rows": sizes.known,
        "calibration_rows": sizes.calibration,
        "test_rows": sizes.test,
        "left_out_rows": sizes.left_out,
        "artifact_path": artifact.run_id,
        "refitted": False,
        "created_at": created_at,
    }


def status_of(runs: pd.DataFrame, run_id: str) -> str | None:
    """Status of a run; None where there is no such run."""
    found = runs.loc[runs["run_id"] == run_id, "status"]
    return None if found.empty else str(found.iloc[0])


# ---------------------------------------------------------------- telling


def summarise(report: Report) -> str:
    """The summary of a run for people."""
    run = report.run
    at_headline = report.metrics[
        (report.metrics["split"] == "test")
        & (report.metrics["lead_days"] == report.headline)
        & (report.metrics["segment"] == "all")
    ]
    figures = {
        (row["scorer"], row["metric"]): row for row in at_headline.to_dict("records")
    }
    base = figures["model", "base_rate"]
    lines = [
        f"Run {run['run_id']}: {run['status']}. {run['status_reason']}",
        f"Points: {run['train_rows']:,} trained on, {run['calibration_rows']:,} of "
        f"them calibrated on, {run['test_rows']:,} tested on "
        f"(from {run['test_from']}), "
        f"{run['left_out_rows']:,} left out",
        f"At lead {report.headline}: {base['rows']:,} test points, "
        f"base rate {base['value']:.3f}",
        "PR-AUC with 95 % interval, and by how much the model is ahead:",
        _figure_line("model", figures["model", "pr_auc"]),
    ]
    for name in BASELINES:
        ahead = figures["model", f"pr_auc_minus_{name}"]
        lines.append(
            _figure_line(name, figures[name, "pr_auc"])
            + f"   {ahead['value']:+.3f} ({ahead['ci_low']:+.3f} to "
            f"{ahead['ci_high']:+.3f})"
        )
    for run_id, count in report.scored.items():
        lines.append(f"Scored by {run_id}: {count:,} points")
    if not report.scored:
        lines.append("Scored: nothing, the run is refused")
    return "\n".join(lines)


def _figure_line(name: str, row: dict[Any, Any]) -> str:
    return (
        f"  {name:<12} {row['value']:.3f} ({row['ci_low']:.3f} to {row['ci_high']:.3f})"
    )
