"""What a run is known by, where its model lies, and which run is in charge.

An artifact is a folder `<run_id>` in MODELS_PATH: the models in XGBoost's own
format and `artifact.json` with everything else. Nothing is pickled.
"""

import hashlib
import json
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import xgboost as xgb

from ml.boosting import SEED
from ml.calibrate import Bands, Calibration
from ml.dataset import Points
from ml.features import FeatureContract
from ml.settings import UserError
from ml.warehouse import find_handback_table, table_exists

ARTIFACT_FILE = "artifact.json"
# The row of model_runs, for a warehouse that the run was not trained in.
RUN_FILE = "run.json"
MODEL_FILE = "model.ubj"
LIBRARIES = ("xgboost-cpu", "xgboost", "scikit-learn", "numpy", "pandas", "duckdb")
# The modules that decide what a model is, how it is measured and what it says.
CODE = (
    "backtest",
    "baselines",
    "boosting",
    "calibrate",
    "dataset",
    "dependence",
    "estimates",
    "evaluate",
    "explain",
    "features",
    "imbalance",
    "metrics",
    "refits",
    "score",
    "scorer",
    "search",
    "studies",
    "training",
)
CHAMPION = "champion"
CHALLENGER = "challenger"
REFUSED = "refused"
RETIRED = "retired"
# How the status_reason of a retired run begins, before its successor's name.
REPLACED = "Replaced by "
ROLLED_BACK = "Rolled back to "
# Where in a status_reason that which the fairness gate said begins.
GATE_NOTE = " Fairness: "


class ArtifactError(UserError):
    """The folder of a model is missing, incomplete or damaged."""


@dataclass(frozen=True)
class RunInputs:
    """Everything that decides a run: equal inputs, equal run."""

    data_fingerprint: str
    code_fingerprint: str
    feature_fingerprint: str
    settings: dict[str, Any]
    seed: int = SEED

    @property
    def run_id(self) -> str:
        """The run's name: a hash of its inputs."""
        return _digest(
            self.data_fingerprint,
            self.code_fingerprint,
            self.feature_fingerprint,
            json.dumps(self.settings, sort_keys=True),
            str(self.seed),
        )


@dataclass(frozen=True)
class Artifact:
    """All that scoring needs of a run."""

    run_id: str
    model: xgb.Booster
    fold_models: list[xgb.Booster]
    contract: FeatureContract
    calibration: Calibration
    bands: Bands
    parameters: dict[str, Any]
    inputs: RunInputs


# ---------------------------------------------------------------- fingerprints


def _digest(*parts: str) -> str:
    joined = "\0".join(parts).encode()
    return hashlib.sha256(joined).hexdigest()[:16]


def fingerprint_points(*parts: Points) -> str:
    """Hash of the rows of several sets of points, in key order."""
    return _digest(*(_fingerprint_rows(part) for part in parts))


def _fingerprint_rows(points: Points) -> str:
    # Whether a point is also scored says nothing about the training.
    targets = points.targets.drop(columns=["is_scoring_point"])
    hashed = hashlib.sha256()
    for frame in (targets, points.features):
        hashed.update("\0".join(map(str, frame.columns)).encode())
        rows = pd.util.hash_pandas_object(frame, index=False)
        hashed.update(rows.to_numpy().tobytes())
    return hashed.hexdigest()


def fingerprint_code(modules: Iterable[str] = (), libraries: Iterable[str] = ()) -> str:
    """Hash of the modules that decide a model, and of the libraries under them.

    Parameters
    ----------
    modules, libraries
        What an engine has beside those that all models are made with.
    """
    folder = Path(__file__).parent
    sources = [
        (folder / f"{name}.py").read_text(encoding="utf-8")
        for name in (*CODE, *modules)
    ]
    versions = library_versions(libraries)
    return _digest(*sources, json.dumps(versions, sort_keys=True))


def fingerprint_features(kinds: dict[str, str]) -> str:
    """Hash of feature names and kinds."""
    return _digest(json.dumps(kinds, sort_keys=True))


def library_versions(more: Iterable[str] = ()) -> dict[str, str]:
    """Versions of what computes, as far as installed."""
    found = {"python": platform.python_version()}
    for name in (*LIBRARIES, *more):
        try:
            found[name] = version(name)
        except ModuleNotFoundError:
            continue
    return found


# ---------------------------------------------------------------- artifacts


def save_artifact(models_path: Path, artifact: Artifact) -> None:
    """Write the folder of a run at once: it is whole, or not there."""
    models_path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models_path, prefix=".new-") as temporary:
        folder = Path(temporary) / artifact.run_id
        folder.mkdir()
        models = {MODEL_FILE: artifact.model} | {
            f"fold_{number}.ubj": model
            for number, model in enumerate(artifact.fold_models)
        }
        for name, model in models.items():
            model.save_model(folder / name)
        text = json.dumps(_describe(artifact, folder, list(models)), indent=2)
        (folder / ARTIFACT_FILE).write_text(text + "\n", encoding="utf-8")
        target = models_path / artifact.run_id
        if target.exists():
            shutil.move(target, Path(temporary) / "old")
        folder.replace(target)


def _describe(artifact: Artifact, folder: Path, files: list[str]) -> dict[str, Any]:
    inputs = artifact.inputs
    return {
        "run_id": artifact.run_id,
        "parameters": artifact.parameters,
        "features": artifact.contract.to_json(),
        "calibration": artifact.calibration.to_json(),
        "bands": artifact.bands.to_json(),
        "inputs": {
            "data_fingerprint": inputs.data_fingerprint,
            "code_fingerprint": inputs.code_fingerprint,
            "feature_fingerprint": inputs.feature_fingerprint,
            "settings": inputs.settings,
            "seed": inputs.seed,
        },
        "versions": library_versions(),
        "files": {name: _hash_file(folder / name) for name in files},
    }


def _hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_artifact(models_path: Path, run_id: str) -> Artifact:
    """Read a run's folder.

    Raises
    ------
    ArtifactError
        Something is missing or was changed since it was written.
    """
    folder = models_path / run_id
    try:
        text = (folder / ARTIFACT_FILE).read_text(encoding="utf-8")
        found = json.loads(text)
        damaged = [
            name
            for name, written in found["files"].items()
            if _hash_file(folder / name) != written
        ]
        if damaged:
            raise ArtifactError(_bad_artifact(folder, f"{damaged[0]} was changed"))
        models = {
            name: xgb.Booster(model_file=folder / name) for name in found["files"]
        }
        return Artifact(
            run_id=run_id,
            model=models.pop(MODEL_FILE),
            fold_models=list(models.values()),
            contract=FeatureContract(**found["features"]),
            calibration=Calibration(**found["calibration"]),
            bands=Bands(**found["bands"]),
            parameters=found["parameters"],
            inputs=RunInputs(**found["inputs"]),
        )
    except (OSError, ValueError, KeyError, TypeError, xgb.core.XGBoostError) as error:
        raise ArtifactError(_bad_artifact(folder, str(error))) from error


def _bad_artifact(folder: Path, why: str) -> str:
    return (
        f"The model in {folder} cannot be used: {why}. "
        "Train it again with `python -m ml.train`, or point MODELS_PATH at it."
    )


def save_run(models_path: Path, row: dict[str, Any]) -> None:
    """Put the row of `model_runs` beside the run's model."""
    folder = models_path / str(row["run_id"])
    draft = folder / f".{RUN_FILE}"
    text = json.dumps({k: _plain(v) for k, v in row.items()}, indent=2, default=str)
    draft.write_text(text + "\n", encoding="utf-8")
    draft.replace(folder / RUN_FILE)


def _plain(value: Any) -> Any:
    """Numpy's numbers as Python's, what is missing as null."""
    return None if pd.isna(value) else getattr(value, "item", lambda: value)()


def load_run(models_path: Path, run_id: str) -> dict[str, Any] | None:
    """The row of `model_runs` that lies beside a model; None where there is none."""
    try:
        text = (models_path / run_id / RUN_FILE).read_text(encoding="utf-8")
        row = json.loads(text)
        times = ("created_at", "promoted_at")
        days = {"test_from": pd.Timestamp(row["test_from"]).date()}
        return row | days | {name: pd.Timestamp(row[name]) for name in times}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(_bad_artifact(models_path / run_id, str(error))) from error


def has_artifact(models_path: Path, run_id: str) -> bool:
    """Whether the run's folder is there and whole."""
    try:
        load_artifact(models_path, run_id)
    except ArtifactError:
        return False
    return True


# ---------------------------------------------------------------- runs


def read_runs(
    connection: duckdb.DuckDBPyConnection, source_system: str, target_definition: str
) -> pd.DataFrame:
    """All runs of this source and target; none where nothing was trained yet."""
    if not table_exists(connection, "model_runs", schema="ml"):
        return pd.DataFrame(columns=list(find_handback_table("ml.model_runs").columns))
    return connection.execute(
        "select * from ml.model_runs where source_system = ?"
        " and target_definition = ? order by run_id",
        [source_system, target_definition],
    ).df()


def find_champion(runs: pd.DataFrame) -> str | None:
    """`run_id` of the run in charge, if there is one."""
    champions = runs.loc[runs["status"] == CHAMPION, "run_id"]
    return None if champions.empty else str(champions.iloc[0])


def find_previous_champion(runs: pd.DataFrame) -> str | None:
    """`run_id` of the run that was champion last before the one in charge.

    Runs that were rolled back from are left out. A champion of an older version does
    not say when it was promoted: then it counts from when it was first written.
    """
    retired = runs[runs["status"] == RETIRED]
    rolled_back = retired["status_reason"].str.startswith(ROLLED_BACK, na=False)
    retired = retired[~rolled_back.astype(bool)]
    if retired.empty:
        return None
    since = retired["promoted_at"].fillna(retired["created_at"])
    ordered = retired.assign(since=since).sort_values(["since", "run_id"])
    return str(ordered["run_id"].iloc[-1])


def promotion_time(run_id: str, status: str, runs: pd.DataFrame) -> datetime | None:
    """When a run became champion: now, unless it was before; None for never."""
    before = runs[runs["run_id"] == run_id]
    if status == CHAMPION and CHAMPION not in set(before["status"]):
        return _now()
    return None if before.empty else before["promoted_at"].iloc[0]


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def choose_status(
    run_id: str,
    refused: bool,
    refit_of: str | None,
    promote: bool,
    runs: pd.DataFrame,
    hold: bool = False,
) -> str:
    """Status of a run that has just been trained.

    The first run that is not refused is champion, later ones are challengers. A run
    that was there before keeps its status; a refit takes the place of the model that
    it refits, or of an earlier refit of the same. On `hold`, whoever would become
    champion is a challenger until a gate was passed.
    """
    if refused:
        return REFUSED
    champion = find_champion(runs)
    takes_charge = (
        champion is None
        or promote
        or (refit_of and refit_of in (champion, _refit_of(champion, runs)))
    )
    if takes_charge and run_id != champion:
        return CHALLENGER if hold else CHAMPION
    if takes_charge:
        return CHAMPION
    before = runs.loc[runs["run_id"] == run_id, "status"]
    if before.empty or before.iloc[0] == REFUSED:
        return CHALLENGER
    return str(before.iloc[0])


def _refit_of(run_id: str, runs: pd.DataFrame) -> str | None:
    settings = runs.loc[runs["run_id"] == run_id, "settings"].iloc[0]
    return json.loads(settings).get("refit_of")


def find_refits(run_id: str, runs: pd.DataFrame) -> list[str]:
    """`run_id` of every refit of a run."""
    return [str(each) for each in runs["run_id"] if _refit_of(each, runs) == run_id]


def retire_others(
    connection: duckdb.DuckDBPyConnection,
    champion: str,
    source_system: str,
    target_definition: str,
    farewell: str = REPLACED,
) -> None:
    """There is one champion per source and target; the reason of the others becomes
    `farewell` and its name."""
    connection.execute(
        "update ml.model_runs set status = ?, status_reason = ?"
        " where status = ? and run_id <> ?"
        " and source_system = ? and target_definition = ?",
        [
            RETIRED,
            f"{farewell}{champion}.",
            CHAMPION,
            champion,
            source_system,
            target_definition,
        ],
    )


ChampionChange = Callable[[duckdb.DuckDBPyConnection, str, str], None]


def promote(
    connection: duckdb.DuckDBPyConnection,
    run_id: str,
    reason: str,
    farewell: str = REPLACED,
) -> None:
    """Make a run champion and retire the one before; in the caller's transaction."""
    found = connection.execute(
        "update ml.model_runs set status = ?, status_reason = ?, promoted_at = ?"
        " where run_id = ? returning source_system, target_definition",
        [CHAMPION, reason, _now(), run_id],
    ).fetchone()
    if found:
        source_system, target_definition = found
        retire_others(connection, run_id, source_system, target_definition, farewell)


def roll_back(connection: duckdb.DuckDBPyConnection, run_id: str, reason: str) -> None:
    """Make an earlier champion the champion again; in the caller's transaction.

    The one it replaces is no longer among those to go back to: rolling back once more
    goes further back.
    """
    promote(connection, run_id, reason, farewell=ROLLED_BACK)


def note_gate(connection: duckdb.DuckDBPyConnection, run_id: str, said: str) -> None:
    """End a run's reason with what the gate said, in place of what it said before."""
    connection.execute(
        "update ml.model_runs set status_reason ="
        " split_part(status_reason, ?, 1) || ? where run_id = ?",
        [GATE_NOTE, GATE_NOTE + said, run_id],
    )
