"""Run the pipeline's own commands in a scratch folder, as a user would."""

import os
import subprocess
import sys
from pathlib import Path

from ml.settings import PROJECT_ROOT

# What a developer has in the environment must not decide what a test sees.
SETTINGS = (
    "SOURCE_SYSTEM",
    "DATA_RAW_PATH",
    "PUBLISH_POSTGRES_URL",
    "FORGOTTEN_PATH",
    "TARGET_DEFINITION",
    "OBSERVATION_WINDOW_DAYS",
    "PREDICTION_LEADS",
    "INCLUDE_ATTRIBUTES",
    "AS_OF_DATE",
    "TEST_FROM",
    "PREDICTION_THRESHOLD",
    "CONFIDENCE_THRESHOLD",
    "FLAG_CAPACITY",
    "ADVISORS",
    "CONTACT_COST",
    "PASS_VALUE",
    "CONTACT_EFFECT",
    "CAMPAIGNS",
    "FAIRNESS_MAX_GAP",
    "SPARK_MASTER",
    "SPARK_DRIVER_MEMORY",
    "SPARK_DRIVER_HOST",
    "SPARK_SHUFFLE_PARTITIONS",
)


def is_setting(name: str) -> bool:
    """Whether this variable is one of them."""
    return name in SETTINGS or name.startswith("MODEL_")


class CommandFailed(AssertionError):
    """A command ended with an error; the message is what it printed."""


def environment(scratch: Path, **settings: str) -> dict[str, str]:
    """The environment of a command whose every file lies in `scratch`."""
    scratch.mkdir(parents=True, exist_ok=True)
    inherited = {
        name: value for name, value in os.environ.items() if not is_setting(name)
    }
    return (
        inherited
        | {
            "WAREHOUSE_PATH": str(scratch / "warehouse.duckdb"),
            "SPARK_WAREHOUSE_PATH": str(scratch / "spark"),
            "MODELS_PATH": str(scratch / "models"),
            "DATA_PROCESSED_PATH": str(scratch / "published"),
            "INTERVENE_STORE": f"sqlite:///{scratch / 'intervene.sqlite'}",
            "DBT_TARGET_PATH": str(scratch / "target"),
            "DBT_LOG_PATH": str(scratch / "logs"),
        }
        | settings
    )


def run(
    scratch: Path,
    *command: str | Path,
    project: Path = PROJECT_ROOT,
    check: bool = True,
    **settings: str,
) -> subprocess.CompletedProcess[str]:
    """Run `dbt …` or `python …` of this environment and return what it printed."""
    program, *arguments = map(str, command)
    executable = Path(sys.executable).with_name(program)
    done = subprocess.run(
        [executable, *arguments],
        cwd=project,
        env=environment(scratch, **settings),
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode != 0:
        raise CommandFailed(
            f"{' '.join(map(str, command))} ended with {done.returncode}:\n"
            f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        )
    return done
