"""dbt on Spark builds what dbt on DuckDB builds, to the last row.

One session serves every test, and each build replaces the tables of the one before,
as a user's would; that costs a minute and a half instead of four.
"""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from dbt.cli.main import dbtRunner
from dbt.contracts.results import RunResult
from pyspark.sql import SparkSession

from ml.forgotten import Forgotten
from ml.settings import PROJECT_ROOT, load_settings
from ml.spark import open_spark
from ml.warehouse import HANDBACK_SOURCES, handback_tables
from tests.leakage_data import write_oulad, write_platform
from tests.pipeline import environment, run
from tests.spark.compare import (
    Content,
    differences,
    duckdb_tables,
    read_duckdb,
    read_spark,
    spark_tables,
)
from tests.spark.odd_data import make_odd, odd_values
from tests.spark.spark_project import CLUSTER, executors
from tests.test_oulad_staging import FILES, write_files

# The folder of Spark's tables; a name in which a path and a URI differ.
TABLES = "somebody's tables, 50%20 #1 ü"
# A training that takes seconds: no parameter is left to search.
SMALL_MODEL = {
    "MODEL_N_ESTIMATORS": "20",
    "MODEL_MAX_DEPTH": "3",
    "MODEL_LEARNING_RATE": "0.1",
    "MODEL_SUBSAMPLE": "0.8",
    "MODEL_SCALE_POS_WEIGHT": "1",
}
SPARK_TYPES = {"varchar": "string", "integer": "int"}
# Generic tests see equal tables and would say the same; unit tests need no data.
BUILD = (
    "build",
    "--select",
    "resource_type:seed",
    "resource_type:model",
    "test_type:singular",
    "--exclude-resource-type",
    "unit_test",
)
MODELS = ("build", "--exclude-resource-types", "test", "unit_test")
# Where raw values are read; what follows is compared on the sample and on OULAD.
READING = (
    "--select",
    "path:dbt_project/models/staging",
    "path:dbt_project/models/intermediate/core",
    "path:dbt_project/models/intermediate/quarantine",
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spark")


@pytest.fixture(scope="module")
def spark(scratch: Path) -> Iterator[SparkSession]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_WAREHOUSE_PATH", str(scratch / TABLES))
        patch.setenv("SPARK_MASTER", CLUSTER)
        patch.setenv("SPARK_DRIVER_MEMORY", "2g")
        patch.setenv("SPARK_SHUFFLE_PARTITIONS", "2")
        # Compiled once and quickly: most code of a small build runs a few times. Java
        # would keep less room for it then, and Spark ends where there is none.
        options = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m"
        patch.setenv("JAVA_TOOL_OPTIONS", options)
        with open_spark(load_settings(None)) as session:
            yield session


def dbt_on_spark(scratch: Path, *command: str, **settings: str) -> list[RunResult]:
    """Run dbt in this process, so that it takes the session that is there."""
    variables = environment(scratch, **settings)
    places = ["--target-path", str(scratch / "on_spark"), "--log-path", str(scratch)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(PROJECT_ROOT)
        for name in set(os.environ) - set(variables):
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        done = dbtRunner().invoke(
            ["--quiet", "--no-use-colors", *command, "--target", "spark", *places]
        )
    results = list(done.result.results) if done.result else []
    failed = [
        f"{result.node.name}: {result.message}"
        for result in results
        if result.status in ("error", "fail", "runtime error")
    ]
    assert done.success, "\n".join(failed) or str(done.exception)
    return results


def dbt_on_duckdb(scratch: Path, *command: str, **settings: str) -> str:
    return run(scratch, "dbt", "--no-use-colors", *command, **settings).stdout


# What lets DuckDB's next build add to this one; Spark builds all again.
ABOUT_THE_NEXT_BUILD = {
    "build_fingerprint",
    "facts_checksum",
    "activity_checksum",
    "event_files_checksum",
}


def leave_out(content: Content, columns: set[str]) -> None:
    """Take columns off a table."""
    kept = [n for n, name in enumerate(content.columns) if name not in columns]
    names = list(content.columns)
    content.columns = {names[n]: content.columns[names[n]] for n in kept}
    content.rows = [tuple(row[n] for n in kept) for row in content.rows]


def compare(scratch: Path, spark: SparkSession) -> None:
    """Every table of DuckDB's warehouse is there on Spark, and holds the same."""
    wrong = {}
    with duckdb.connect(str(scratch / "warehouse.duckdb")) as connection:
        connection.execute("set timezone = 'UTC'")
        names = duckdb_tables(connection)
        assert names
        assert names <= spark_tables(spark)
        for name in sorted(names):
            expected = read_duckdb(connection, f"select * from {name}")
            actual = read_spark(spark, name)
            if name == "main.pipeline_settings":
                for content in (expected, actual):
                    leave_out(content, ABOUT_THE_NEXT_BUILD)
            found = differences(expected, actual)
            if found:
                wrong[name] = [len(found), *found[:2]]
    assert not wrong, "\n".join(map(str, wrong.items()))


def copy_handback(scratch: Path, spark: SparkSession) -> None:
    """Give Spark the rows that Python wrote to DuckDB, in place of others."""
    with duckdb.connect(str(scratch / "warehouse.duckdb")) as connection:
        for source in HANDBACK_SOURCES:
            spark.sql(f"create schema if not exists {source}")
            for table in handback_tables(source).values():
                file = scratch / f"{table.full_name}.parquet"
                connection.execute(f"copy {table.full_name} to '{file}'")
                columns = ", ".join(
                    f"cast({name} as {SPARK_TYPES.get(kind, kind)}) as {name}"
                    for name, kind in table.columns.items()
                )
                spark.sql(f"drop table if exists {table.full_name}")
                spark.sql(
                    f"create table {table.full_name} as select {columns}"
                    f" from parquet.`{file}`"
                )


def test_sample_with_scores_and_messages(scratch: Path, spark: SparkSession) -> None:
    dbt_on_duckdb(scratch, *MODELS)
    run(scratch, "python", "-m", "ml.train", "--no-studies", **SMALL_MODEL)
    dbt_on_duckdb(scratch, *MODELS, "--select", "source:ml+")
    run(scratch, "python", "-m", "intervene", "draft")
    dbt_on_duckdb(scratch, *MODELS, "--select", "marts.interventions")
    copy_handback(scratch, spark)

    dbt_on_spark(scratch, *BUILD)

    compare(scratch, spark)


def test_odd_files_while_executors_are_lost(scratch: Path, spark: SparkSession) -> None:
    scratch = scratch / "odd_files"
    folder = scratch / "somebody's raw [data], odd" / "region=north"
    folder.mkdir(parents=True)
    write_platform(folder, students=200)
    make_odd(folder)
    settings = {"SOURCE_SYSTEM": "platform", "DATA_RAW_PATH": str(folder)}

    dbt_on_duckdb(scratch, *MODELS, *READING, **settings)
    copy_handback(scratch, spark)
    there = executors(spark)
    killers = [
        threading.Timer(10.0 * number, os.kill, [executor, signal.SIGKILL])
        for number, executor in enumerate(there, 1)
    ]
    for killer in killers:
        killer.start()
    dbt_on_spark(scratch, *MODELS, *READING, **settings)
    assert not any(killer.is_alive() for killer in killers)
    assert len(there) == 2
    assert set(there).isdisjoint(executors(spark))

    compare(scratch, spark)


def test_attributes_that_a_parquet_file_has_are_found(
    scratch: Path, spark: SparkSession
) -> None:
    scratch = scratch / "attributes"
    folder = scratch / "raw"
    folder.mkdir(parents=True)
    write_platform(folder, students=20)
    chosen = ["--select", "stg_platform__students", "platform__student_attributes"]
    settings = {"SOURCE_SYSTEM": "platform", "DATA_RAW_PATH": str(folder)}

    dbt_on_duckdb(scratch, *MODELS, *chosen, **settings)
    copy_handback(scratch, spark)
    dbt_on_spark(scratch, *MODELS, *chosen, **settings)

    found = spark.table("staging.platform__student_attributes").toPandas()
    assert set(found["attribute"]) == {"age_band", "gender", "region"}
    compare(scratch, spark)


def test_oulad(scratch: Path, spark: SparkSession) -> None:
    scratch = scratch / "made_up_oulad"
    folder = scratch / "raw"
    scratch.mkdir()
    write_oulad(folder)
    settings = {"SOURCE_SYSTEM": "oulad", "DATA_RAW_PATH": str(folder)}

    dbt_on_duckdb(scratch, *MODELS, **settings)
    copy_handback(scratch, spark)
    dbt_on_spark(scratch, *MODELS, **settings)

    compare(scratch, spark)


def test_oulad_with_dirt(scratch: Path, spark: SparkSession) -> None:
    scratch = scratch / "dirty_oulad"
    write_files(scratch / "raw", FILES)
    settings = {"SOURCE_SYSTEM": "oulad", "DATA_RAW_PATH": "~/raw"}
    settings["HOME"] = str(scratch)

    dbt_on_duckdb(scratch, *MODELS, *READING, **settings)
    copy_handback(scratch, spark)
    dbt_on_spark(scratch, *MODELS, *READING, **settings)

    compare(scratch, spark)


MACROS = """
with parsed as (
    select
        number,
        {{ blank_to_null('value') }} as text,
        {{ parse_timestamp('value') }} as a_time,
        {{ parse_number('value') }} as a_number,
        {{ parse_integer('value') }} as an_integer,
        {{ parse_boolean('value') }} as a_boolean,
        {{ sha256_hex('value') }} as hash
    from odd_values
)
select
    *,
    {{ as_decimal('case when abs(a_number) < 9e12 then a_number end') }} as exact,
    {{ share_as_text('case when a_number between 0 and 1 then a_number end') }}
        as share,
    {{ dbt.dateadd('day', 'mod(number, 100) - 50', 'a_time') }} as other_time,
    {{ add_days('cast(a_time as date)', -3) }} as other_day,
    {{ weekday('cast(a_time as date)') }} as day_of_week,
    cast(extract(hour from a_time) as bigint) as hour,
    {{ dbt.datediff("cast('2024-03-01 12:00:01' as timestamp)", 'a_time', 'day') }}
        as days,
    cast({{ dbt.datediff(
        "cast('2024-03-01 12:00:01' as timestamp)", 'a_time', 'hour'
    ) }} as bigint) as hours,
    cast({{ dbt.date_trunc('week', 'a_time') }} as date) as week
from parsed
"""


def test_macros_on_odd_values(scratch: Path, spark: SparkSession) -> None:
    values = list(enumerate(odd_values()))
    file = scratch / "odd_values.parquet"
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.execute("create table odd_values (number bigint, value varchar)")
        connection.executemany("insert into odd_values values (?, ?)", values)
        connection.execute(f"copy odd_values to '{file}'")
        inline = ("compile", "--no-populate-cache", "--inline", MACROS)
        query = dbt_on_duckdb(scratch, "--quiet", *inline)
        expected = read_duckdb(connection, query[query.index("with parsed") :])
    spark.read.parquet(str(file)).createOrReplaceTempView("odd_values")
    (compiled,) = dbt_on_spark(scratch, *inline)
    spark.sql(compiled.node.compiled_code).createOrReplaceTempView("answers")

    assert len(expected.rows) == len(values)
    assert not differences(expected, read_spark(spark, "answers"))[:20]


def test_forgotten_students_are_in_no_table(scratch: Path, spark: SparkSession) -> None:
    scratch = scratch / "forgotten_students"
    folder = scratch / "who [forgot]"
    for student in ("s5", "s11"):
        assert Forgotten(folder).remember("sample", student)
    chosen = ["--select", "students", "courses", "stg_platform__students"]
    settings = {"FORGOTTEN_PATH": str(folder)}

    dbt_on_duckdb(scratch, *MODELS, *chosen, **settings)
    copy_handback(scratch, spark)
    dbt_on_spark(scratch, *MODELS, *chosen, **settings)

    for table in ("raw.students", "staging.stg_platform__students"):
        rows = spark.table(table)
        assert rows.count() > 1000
        assert rows.where("student_id in ('s5', 's11')").count() == 0
    compare(scratch, spark)


def test_a_killed_run_leaves_nothing_in_the_way(
    scratch: Path, spark: SparkSession
) -> None:
    table = "stg_platform__students"
    folder = scratch / TABLES / "tables" / "staging.db" / table
    dbt_on_spark(scratch, "seed", "--select", "students")
    spark.sql(f"drop table if exists staging.{table}")
    spark.sql("create table raw_files.unfinished_run (a int)")
    (folder / "_temporary").mkdir(parents=True)
    (folder / "_temporary" / "part").write_text("half a file")

    dbt_on_spark(scratch, "run", "--select", table)

    assert spark.table(f"staging.{table}").count() > 1000
    assert not spark.catalog.tableExists("raw_files.unfinished_run")
