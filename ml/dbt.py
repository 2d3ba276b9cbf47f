"""Run dbt from Python, under the settings of the command that needs it."""

import os
import subprocess
import sys
from pathlib import Path

from ml.settings import PROJECT_ROOT, Settings, UserError


def run_dbt(
    settings: Settings,
    arguments: list[str],
    consequence: str,
    environment: dict[str, str] | None = None,
) -> None:
    """Run `dbt` with its words on stderr.

    Parameters
    ----------
    arguments
        As on the command line: `["build", "--select", "student_targets"]`.
    consequence
        What has not been done where dbt fails, as a sentence.
    environment
        Variables beside those of the settings.

    Raises
    ------
    UserError
        dbt ended with an error.
    """
    dbt = Path(sys.executable).with_name("dbt")
    finished = subprocess.run(
        [str(dbt), *arguments],
        cwd=PROJECT_ROOT,
        env=os.environ | settings.environment() | (environment or {}),
        stdout=sys.stderr,
        check=False,
    )
    if finished.returncode:
        raise UserError(
            f"`dbt {' '.join(arguments)}` failed; its messages above say why. "
            f"{consequence}"
        )
