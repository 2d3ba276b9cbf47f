"""The one place that makes the Spark session of Python's commands.

Its configuration is that of dbt's target `spark` in profiles.yml, so that both see the
same tables and read a time or a number in the same way. Whichever comes first in a
process makes the session, and the other one uses it.
"""

import fcntl
import os
import re
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import yaml

from ml.settings import PROJECT_ROOT, Settings, UserError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PROFILES = PROJECT_ROOT / "profiles.yml"
LOG_SETTINGS = "ml/spark.log4j2.properties"
LOCK_WAIT_SECONDS = 10.0
LOCK_POLL_SECONDS = 0.25
METASTORE = "spark.hadoop.javax.jdo.option.ConnectionURL"


class SparkUnavailable(UserError):
    """Spark is not installed, or cannot be started."""


class SparkLocked(UserError):
    """Another process has the tables open."""


def session_config(settings: Settings) -> dict[str, str]:
    """Return what dbt's target `spark` says, under these settings."""
    profile = yaml.safe_load(PROFILES.read_text(encoding="utf-8"))
    lines = profile["student_success"]["outputs"]["spark"]["server_side_parameters"]
    environment = os.environ | settings.environment()
    engine = jinja2.Environment(undefined=jinja2.StrictUndefined)
    engine.globals["env_var"] = environment.get
    config = {
        name: engine.from_string(str(value)).render() for name, value in lines.items()
    }
    # dbt stands in the project's folder; Python may stand elsewhere.
    options = "spark.driver.extraJavaOptions"
    log_settings = (PROJECT_ROOT / LOG_SETTINGS).as_uri()
    config[options] = config[options].replace(LOG_SETTINGS, log_settings)
    return config


@contextmanager
def open_spark(settings: Settings) -> Iterator["SparkSession"]:
    """Make the session, or take the one of this process, which then stays.

    Raises
    ------
    SparkUnavailable
        The extra `spark` or Java is missing, or Spark does not start.
    SparkLocked
        Another process has the tables open.
    """
    spark_session = import_session()
    was_there = spark_session.getActiveSession() is not None
    config = session_config(settings)
    if not was_there:
        _check_lock(config)
    session = _start(spark_session, config)
    try:
        yield session
    finally:
        if not was_there:
            _stop(session)


def _stop(session: "SparkSession") -> None:
    """Stop it and its JVM: as long as that lives, it keeps the tables to itself."""
    from pyspark import SparkFiles

    context: Any = session.sparkContext
    gateway = context._gateway
    files = SparkFiles.getRootDirectory()
    session.stop()
    # Packages that were sent to executors are gone, and other imports stumble there.
    sys.path[:] = [path for path in sys.path if not path.startswith(files)]
    for path in [path for path in sys.path_importer_cache if path.startswith(files)]:
        del sys.path_importer_cache[path]
    gateway.shutdown()
    # It ends with its input.
    gateway.proc.stdin.close()
    gateway.proc.wait()
    type(context)._gateway = type(context)._jvm = None


def import_session() -> Any:
    """pyspark's session class.

    Raises
    ------
    SparkUnavailable
        The extra `spark` or Java is missing.
    """
    try:
        with warnings.catch_warnings():
            # Of what pandas 3 breaks in pyspark, nothing is used here.
            warnings.simplefilter("ignore", FutureWarning)
            from pyspark.sql import SparkSession
    except ImportError:
        raise SparkUnavailable(
            "Spark is not installed. Install the extra: "
            "`.venv/bin/pip install '.[spark]'` (docs/spark.md)."
        ) from None
    if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        raise SparkUnavailable(
            "Spark needs Java 17, and there is no `java`. Install it from your system, "
            "such as the Debian package openjdk-17-jre-headless, or set JAVA_HOME."
        )
    return SparkSession


def _start(spark_session: Any, config: dict[str, str]) -> "SparkSession":
    builder = spark_session.builder.enableHiveSupport()
    for name, value in config.items():
        builder = builder.config(name, value)
    try:
        session: SparkSession = builder.getOrCreate()
        # Spark looks at the metastore late: now, so that an error is told here.
        session.sql("create schema if not exists main")
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise SparkUnavailable(
            f"Spark did not start: {type(error).__name__}: {first}. Check "
            "`java -version` (17), SPARK_MASTER and SPARK_DRIVER_MEMORY."
        ) from error
    return session


def _check_lock(config: dict[str, str]) -> None:
    """Derby keeps one process at a time, and tells it slowly and at length.

    A process that has just ended, such as dbt's, keeps the tables for a moment longer.
    """
    found = re.search(r"databaseName=(.*?);", config[METASTORE])
    lock = Path(found[1]) / "dbex.lck" if found else None
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while lock and lock.exists() and _is_locked(lock):
        if time.monotonic() >= deadline:
            raise SparkLocked(
                f"Spark's tables in {lock.parents[1]} are in use by another process. "
                "Wait until that has finished, or end it, and run this command again; "
                "several at once need a Hive metastore of their own (docs/spark.md)."
            )
        time.sleep(LOCK_POLL_SECONDS)


def _is_locked(lock: Path) -> bool:
    with lock.open("r+b") as file:
        try:
            # Locks of the same kind as Java's; closing the file lets go of it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
