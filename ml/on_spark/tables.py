"""The tables that Python writes back, kept by Spark as Parquet.

Parquet tables know no transactions. So rows are written into a new folder first, and
the table, or the partition of a run, is pointed at it when they are whole: that is
one change in the catalog. Whoever is killed before it leaves everything as it was;
the next writer of the same rows removes what was left behind.
"""

import uuid
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ml.settings import Settings
from ml.warehouse import (
    HandbackTable,
    PipelineSettings,
    WarehouseMissing,
    WarehouseOutdated,
    WriteBackError,
    as_arrow,
    compare_settings,
    find_handback_table,
    handback_tables,
    typed_rows,
)

SPARK_TYPES = {"varchar": "string", "integer": "int"}
# What is replaced at once lies together. A run's row changes with the rows of others
# (a new champion retires the one before), so those are one piece. dbt has the same in
# the macro spark__handback_partitions.
PARTITIONS = {
    "ml.model_runs": (),
    "ml.student_scores": ("run_id", "as_of_date"),
    "ml.score_reasons": ("run_id", "as_of_date"),
}
BY_RUN = ("run_id",)
VERSIONS = "_versions"


@dataclass(frozen=True)
class Staged:
    """Rows in a folder of their own, ready to take the place of others."""

    table: str
    partition: dict[str, Any]
    folder: str

    @property
    def versions(self) -> str:
        """The folder that holds this version and its predecessors."""
        return self.folder.rpartition("/")[0]


# ---------------------------------------------------------------- reading


def table_exists(spark: SparkSession, full_name: str) -> bool:
    """Whether the catalog has this table."""
    return bool(spark.catalog.tableExists(full_name))


def require_tables(spark: SparkSession, names: list[str]) -> None:
    """Raise WarehouseMissing naming every table of schema main that is not there."""
    missing = [name for name in names if not table_exists(spark, f"main.{name}")]
    if missing:
        raise WarehouseMissing(
            f"The Spark warehouse has no table {', '.join(missing)}. "
            "Build it with `dbt build --target spark`."
        )


def read_pipeline_settings(spark: SparkSession) -> PipelineSettings:
    """Return what dbt built the tables with."""
    require_tables(spark, ["pipeline_settings"])
    names = list(PipelineSettings.__dataclass_fields__)
    row = spark.table("main.pipeline_settings").select(*names).first()
    if row is None:
        raise WarehouseMissing(
            "Table pipeline_settings is empty. Build it with `dbt build --target "
            "spark`."
        )
    return PipelineSettings(**row.asDict())


def check_pipeline_settings(
    spark: SparkSession, settings: Settings
) -> PipelineSettings:
    """Return what the tables were built with, if this command runs under the same."""
    check_handback_tables(spark)
    built = read_pipeline_settings(spark)
    compare_settings(built, settings, "dbt build --target spark")
    return built


def check_handback_tables(spark: SparkSession) -> None:
    """Raise WarehouseOutdated naming every column that a table of `ml` lacks."""
    lacking = []
    for table in handback_tables("ml").values():
        if not table_exists(spark, table.full_name):
            continue
        found = set(spark.table(table.full_name).columns)
        missing = [name for name in table.columns if name not in found]
        if missing:
            lacking.append(f"  {table.full_name} has no column {', '.join(missing)}")
    if lacking:
        raise WarehouseOutdated(
            "The Spark warehouse was made by an older version:\n"
            + "\n".join(lacking)
            + "\nRun `dbt build --target spark`: it adds them and keeps the rows."
        )


def select_rows(spark: SparkSession, table: str, where: dict[str, Any]) -> DataFrame:
    """Rows of a hand-back table, its columns in the order of the DDL."""
    columns = list(find_handback_table(table).columns)
    return spark.table(table).where(_matches(where)).select(*columns)


def read_rows(spark: SparkSession, table: str, where: dict[str, Any]) -> pd.DataFrame:
    """The same on the driver, in key order and typed as the DDL says."""
    if not table_exists(spark, table):
        return pd.DataFrame(columns=list(find_handback_table(table).columns))
    return typed_rows(table, select_rows(spark, table, where).toPandas())


def _matches(where: dict[str, Any]) -> Any:
    matches = F.lit(True)
    for name, value in where.items():
        matches = matches & F.col(name).eqNullSafe(F.lit(value))
    return matches


# ---------------------------------------------------------------- writing


def spark_ddl(table: HandbackTable) -> str:
    """The statement that creates a hand-back table where it does not exist."""
    columns = ", ".join(
        f"{name} {SPARK_TYPES.get(kind, kind)}" for name, kind in table.columns.items()
    )
    by = PARTITIONS.get(table.full_name, BY_RUN)
    partitioned = f" partitioned by ({', '.join(by)})" if by else ""
    return (
        f"create table if not exists {table.full_name} ({columns})"
        f" using parquet{partitioned}"
    )


def create_handback_tables(spark: SparkSession) -> None:
    """Create the tables of source `ml` that do not exist yet."""
    for table in handback_tables("ml").values():
        spark.sql(f"create database if not exists {table.schema}")
        spark.sql(spark_ddl(table))


def stage_rows(
    spark: SparkSession, table: str, rows: DataFrame | pd.DataFrame, where: dict
) -> Staged:
    """Write rows where nobody reads them yet, to replace those that match `where`.

    Parameters
    ----------
    rows
        Exactly the table's columns, in any order; every row matches `where`.
    where
        Column and value; it names at least the columns that the table is
        partitioned by. What else lies in the same partition is kept.

    Raises
    ------
    WriteBackError
        Columns or keys do not fit, a row does not match `where`, or `where` leaves a
        partition open.
    """
    target = find_handback_table(table)
    by = _partitioned_by(spark, table)
    if any(name not in where for name in by):
        raise WriteBackError(f"{table} is partitioned by {by}: name each in `where`.")
    frame = _typed(spark, target, rows)
    _check_where(target, frame, where)
    partition = {name: where[name] for name in by}
    if len(by) < len(where):
        beside = spark.table(table).where(_matches(partition) & ~_matches(where))
        frame = frame.unionByName(beside.select(*frame.columns))
    folder = f"{_versions_folder(spark, table, partition)}/{uuid.uuid4().hex}"
    inside = [name for name in target.columns if name not in by]
    frame.select(*inside).write.parquet(folder)
    staged = Staged(table, partition, folder)
    _check_key(target, read_staged(spark, staged))
    return staged


def publish(spark: SparkSession, staged: Staged) -> None:
    """Put staged rows in the place of those before, at one stroke."""
    table, place = staged.table, _text(staged.folder)
    replaced = _versions_in_use(spark, staged)
    if staged.partition:
        spec = ", ".join(f"{k}={_text(v)}" for k, v in staged.partition.items())
        # Where the partition is new, adding it is the stroke; else it changes nothing.
        spark.sql(
            f"alter table {table} add if not exists partition ({spec}) location {place}"
        )
        spark.sql(f"alter table {table} partition ({spec}) set location {place}")
    else:
        spark.sql(f"alter table {table} set location {place}")
    spark.catalog.refreshTable(table)
    _remove_older(spark, staged, replaced)


def _text(value: Any) -> str:
    """A text as it stands in a statement of Spark's."""
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def replace_rows(
    spark: SparkSession, table: str, rows: DataFrame | pd.DataFrame, where: dict
) -> None:
    """Put rows in the place of those that match `where`."""
    publish(spark, stage_rows(spark, table, rows, where))


def read_staged(spark: SparkSession, staged: Staged) -> DataFrame:
    """Rows that were staged, without the columns of their partition."""
    return spark.read.parquet(staged.folder)


def _typed(
    spark: SparkSession, target: HandbackTable, rows: DataFrame | pd.DataFrame
) -> DataFrame:
    if isinstance(rows, pd.DataFrame):
        frame = spark.createDataFrame(as_arrow(target, rows)).coalesce(1)
    else:
        frame = rows
    if set(frame.columns) != set(target.columns):
        wrong = sorted(set(frame.columns) ^ set(target.columns))
        raise WriteBackError(f"{target.full_name}: missing or unknown columns {wrong}.")
    return frame.select(
        *(
            F.col(name).cast(SPARK_TYPES.get(kind, kind)).alias(name)
            for name, kind in target.columns.items()
        )
    )


def _check_where(
    target: HandbackTable, frame: DataFrame, where: dict[str, Any]
) -> None:
    """Written among the rows that match, others would be taken for such."""
    outside = frame.where(~_matches(where)).count() if where else 0
    if outside:
        named = ", ".join(f"{name} = {value}" for name, value in where.items())
        raise WriteBackError(f"{target.full_name}: {outside} rows lie outside {named}.")


def _check_key(target: HandbackTable, staged: DataFrame) -> None:
    key = [name for name in target.key if name in staged.columns]
    empty = F.greatest(F.lit(False), *(F.col(name).isNull() for name in key))
    counted = staged.groupBy(empty.alias("is_empty"), *key).count()
    found = counted.agg(
        F.sum(F.when(F.col("is_empty"), F.col("count"))).alias("empty"),
        F.sum(F.col("count") - 1).alias("repeated"),
    ).first()
    if found and found.empty:
        raise WriteBackError(f"{target.full_name}: {found.empty} rows have no key.")
    if found and found.repeated:
        raise WriteBackError(
            f"{target.full_name}: {found.repeated} rows repeat a key"
            f" ({', '.join(target.key)})."
        )


def _partitioned_by(spark: SparkSession, table: str) -> list[str]:
    columns = spark.catalog.listColumns(table)
    return [column.name for column in columns if column.isPartition]


def _versions_folder(spark: SparkSession, table: str, partition: dict[str, Any]) -> str:
    schema, _, name = table.partition(".")
    jvm: Any = spark._jvm
    # In the catalog a blank is %20.
    place = jvm.java.net.URI(spark.catalog.getDatabase(schema).locationUri)
    root = jvm.org.apache.hadoop.fs.Path(place).toString()
    parts = [f"{key}={value}" for key, value in partition.items()]
    return "/".join([root, VERSIONS, name, *parts])


def _versions_in_use(spark: SparkSession, staged: Staged) -> set[str]:
    """The folders that hold what the staged rows will replace, by name."""
    rows = spark.table(staged.table).where(_matches(staged.partition))
    return {file.split("/")[-2] for file in rows.inputFiles()}


def _remove_older(spark: SparkSession, staged: Staged, replaced: set[str]) -> None:
    """Keep this version, and the one before it, which somebody may be reading."""
    # Spark itself has no way to its file systems but Hadoop's.
    jvm: Any = spark._jvm
    folder = jvm.org.apache.hadoop.fs.Path(staged.versions)
    files = folder.getFileSystem(spark._jsc.hadoopConfiguration())
    kept = replaced | {staged.folder.rpartition("/")[2]}
    for found in files.listStatus(folder):
        if found.isDirectory() and found.getPath().getName() not in kept:
            files.delete(found.getPath(), True)
