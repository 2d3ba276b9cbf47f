"""A small Spark warehouse with real workers, written straight into the tables."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyspark.sql import SparkSession

from ml.on_spark.train import open_for_training
from ml.settings import Settings
from tests.ml.synthetic import AS_OF_DATE, Tables, World, make_settings, make_tables

# Two executors, each a process of its own with one core.
CLUSTER = "local-cluster[2,1,1024]"
TYPES = {
    "student_targets": {
        "as_of_date": "date",
        "lead_days": "int",
        "at_risk": "int",
        "due_at": "timestamp",
        "run_started_at": "timestamp",
        "label_known_at": "timestamp",
    },
    "student_features_14d": {"as_of_date": "date"},
}


@dataclass(frozen=True)
class SparkProject:
    """A session, settings that agree with its tables, and what they were made of."""

    spark: SparkSession
    settings: Settings
    tables: Tables

    def rows(self, query: str) -> pd.DataFrame:
        """The answer to a query."""
        return self.spark.sql(query).toPandas()


def executors(spark: SparkSession) -> list[int]:
    """Process ids of the executors."""
    application = spark.sparkContext.applicationId
    return [
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit()
        and "CoarseGrainedExecutorBackend" in (line := _command_line(folder))
        and application in line
    ]


def kill_an_executor(spark: SparkSession) -> None:
    """End one as the system does that has no memory left."""
    os.kill(min(executors(spark)), signal.SIGKILL)


def _command_line(folder: Path) -> str:
    try:
        return (folder / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


@contextmanager
def make_spark_project(
    folder: Path, world: World | None = None, master: str = CLUSTER
) -> Iterator[SparkProject]:
    """Write a warehouse into a folder and open it."""
    settings = make_settings(
        folder,
        spark_warehouse_path=str(folder / "spark"),
        spark_master=master,
        spark_driver_memory="1g",
        spark_shuffle_partitions=2,
    )
    tables = make_tables(world or World())
    with open_for_training(settings) as spark:
        write_tables(spark, tables)
        yield SparkProject(spark, settings, tables)


def write_tables(spark: SparkSession, tables: Tables) -> None:
    """Write the tables that dbt would have built."""
    write_table(spark, "student_targets", tables.targets)
    write_table(spark, "student_features_14d", tables.features)
    spark.sql(
        "create or replace temporary view built as select"
        " 'sample' as source_system, '' as data_raw_path,"
        " 'course_repurchased' as target_definition, 14 as observation_window_days,"
        " '14,7' as prediction_leads, false as include_attributes,"
        f" date '{AS_OF_DATE}' as as_of_date, date '{AS_OF_DATE}' as data_until"
    )
    spark.table("built").write.mode("overwrite").saveAsTable("main.pipeline_settings")


def write_table(spark: SparkSession, name: str, frame: pd.DataFrame) -> None:
    """One of the two tables, with the types that dbt gives it."""
    rows = spark.createDataFrame(pa.Table.from_pandas(frame, preserve_index=False))
    for column, kind in TYPES[name].items():
        rows = rows.withColumn(column, rows[column].cast(kind))
    rows.write.mode("overwrite").saveAsTable(f"main.{name}")
