"""Raw data that cannot be built from is told at once, by table and column."""

import os
from pathlib import Path

import duckdb
import pytest

from ml.preflight import Column, Table, check, read_contract, report, with_attributes
from ml.settings import UserError
from tests.pipeline import run

ITEMS = Table(
    "items",
    (
        Column("item_id", "varchar"),
        Column("made_at", "timestamp"),
        Column("size", "double"),
        Column("pieces", "integer"),
        Column("is_sold", "boolean"),
        Column("note", "varchar", is_optional=True),
    ),
)
PEOPLE = Table(
    "people",
    (Column("person_id", "varchar"), Column("seen_at", "timestamp")),
    is_optional=True,
    is_personal=True,
)
GOOD = "item_id,made_at,size,pieces,is_sold\n1,2024-03-31T14:05Z,1.5,2,1\n"
AS_QUERY = (
    "select 1 as item_id, timestamp '2024-03-31' as made_at, 1.5 as size,"
    " 2 as pieces, true as is_sold"
)


@pytest.fixture
def connection():
    with duckdb.connect() as connection:
        yield connection


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # A path that a careless query would break on.
    folder = tmp_path / "it's [raw] *data"
    folder.mkdir()
    return folder


def told(connection, folder: Path) -> list[str]:
    return [str(problem) for problem in check(connection, [ITEMS, PEOPLE], str(folder))]


def write_parquet(connection, path: Path, query: str) -> None:
    connection.execute(f"copy ({query}) to '{str(path).replace(chr(39), chr(39) * 2)}'")


# ---------------------------------------------------------------- what is fine


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("item_id", " Item_ID "),
        "extra," + GOOD.replace("\n1,", "\nx,1,"),
        # Single dirty values are for staging to quarantine.
        GOOD + "2,never,1.5,2,1\n3,2024-03-31,1.5,2,0\n",
        # A column without any value says nothing about its type.
        GOOD.replace("2024-03-31T14:05Z", ""),
        "# is no comment," + GOOD.replace("\n1,", "\n#,1,"),
    ],
)
def test_good_csv_passes(connection, folder, text):
    (folder / "ITEMS.csv").write_text(text, encoding="utf-8", newline="")

    assert told(connection, folder) == []


@pytest.mark.parametrize(
    "query",
    [
        AS_QUERY,
        AS_QUERY.replace("timestamp '", "timestamptz '"),
        AS_QUERY.replace("timestamp '", "date '"),
        AS_QUERY.replace("timestamp '2024-03-31'", "'2024-03-31 10:00+02'"),
        AS_QUERY.replace("timestamp '2024-03-31'", "cast(null as integer)"),
        AS_QUERY.replace("2 as pieces", "2.0 as pieces"),
        AS_QUERY.replace("true as", "1 as"),
    ],
)
def test_good_parquet_passes(connection, folder, query):
    write_parquet(connection, folder / "items.parquet", query)

    assert told(connection, folder) == []


def test_folder_of_files_passes(connection, folder):
    (folder / "items").mkdir()
    (folder / "items" / "_SUCCESS").touch()
    for name in ("part-1.parquet", "part-2.parquet"):
        write_parquet(connection, folder / "items" / name, AS_QUERY)

    assert told(connection, folder) == []


# ---------------------------------------------------------------- what is not


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "items: items.csv is empty (0 bytes)"),
        (GOOD.split("\n")[0].encode() + b"\n", "items: the table has no rows"),
        (GOOD.replace("size", "").encode(), "names no column 3"),
        (b"\n" + GOOD.encode(), "names no column 1"),
        (
            GOOD.replace("size", " ITEM_ID").encode(),
            "items.item_id: the header of items.csv has the name 2 times",
        ),
        (GOOD.replace("size", "weight").encode(), "items.size: the column is missing"),
        (GOOD.encode() + b"2,2024-03-31,caf\xe9,2,1\n", "not UTF-8 (line 3)"),
        (GOOD.encode("utf-16"), "not UTF-8 (line 1)"),
        (GOOD.encode() + b"2,2024-03-31,1\n", "3 values in line 3, but 5 columns"),
        (GOOD.encode() + b"2,2024-03-31,1,2,1,x\n", "6 values in line 3, but 5"),
        (GOOD.encode() + b'2,"2024-03-31,1,2,1\n', "unbalanced quotes (line 3)"),
        (
            GOOD.replace("2024-03-31T14:05Z", "31/03/2024").encode(),
            "items.made_at: 1 of the first 1 values are not a time like"
            " 2024-03-31T14:05:00Z, such as '31/03/2024'",
        ),
        (GOOD.replace("1.5", "NaN").encode(), "items.size: 1 of the first 1 values"),
        (GOOD.replace(",2,", ",2.5,").encode(), "items.pieces: 1 of the first 1"),
        (GOOD.replace(",1\n", ",maybe\n").encode(), "items.is_sold: 1 of the first"),
    ],
)
def test_damaged_csv_is_told(connection, folder, content, expected):
    (folder / "items.csv").write_bytes(content)

    problems = told(connection, folder)

    assert len(problems) == 1
    assert expected in problems[0]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (AS_QUERY.replace("size", "weight"), "items.size: the column is missing"),
        (
            AS_QUERY.replace("timestamp '2024-03-31'", "1711893906"),
            "items.made_at: the type is INTEGER, expected a time",
        ),
        (
            AS_QUERY.replace("1 as item_id", "cast(1 as double) as item_id"),
            "items.item_id: the type is DOUBLE, expected text (or whole numbers)",
        ),
        (AS_QUERY.replace("1.5", "date '2024-03-31'"), "items.size: the type is DATE"),
        (AS_QUERY.replace("1.5", "[1.5]"), "items.size: the type is DECIMAL(2,1)[]"),
        (AS_QUERY + " where false", "items: the table has no rows"),
    ],
)
def test_wrong_parquet_is_told(connection, folder, query, expected):
    write_parquet(connection, folder / "items.parquet", query)

    problems = told(connection, folder)

    assert len(problems) == 1
    assert expected in problems[0]


@pytest.mark.parametrize("damage", ["cut off", "not Parquet", "flipped bytes"])
def test_damaged_parquet_is_told(connection, folder, damage):
    path = folder / "items.parquet"
    many = AS_QUERY.replace("1 as item_id", "md5(i::varchar) as item_id")
    write_parquet(connection, path, many + " from range(50000) as numbers(i)")
    content = bytearray(path.read_bytes())
    if damage == "cut off":
        content = content[: len(content) // 2]
    elif damage == "not Parquet":
        content = bytearray(b"PAR1 is how it begins")
    else:
        content[5000:9000] = b"\xff" * 4000
    path.write_bytes(content)

    problems = told(connection, folder)

    assert problems == [
        "items: items.parquet is damaged or cut off, or no Parquet file. "
        "Export it again."
    ]


def test_everything_wrong_is_told_at_once(connection, folder):
    (folder / "items.csv").write_text("item_id,made_at,pieces\n1,soon,2\n")
    (folder / "people.csv").write_bytes(b"")

    problems = told(connection, folder)

    assert [problem.split(":")[0] for problem in problems] == [
        "items.size",
        "items.is_sold",
        "items.made_at",
        "people",
    ]


def test_missing_table_names_its_columns(connection, folder):
    (problem,) = told(connection, folder)

    assert problem.startswith("items: the table is missing. Add items.parquet")
    assert "with the columns item_id, made_at, size, pieces, is_sold" in problem


def test_two_formats_are_refused(connection, folder):
    (folder / "items.csv").write_text(GOOD)
    write_parquet(connection, folder / "items.parquet", AS_QUERY)

    (problem,) = told(connection, folder)

    assert "more than one of it (items.csv, items.parquet)" in problem


def test_column_missing_in_one_file_of_a_folder_is_told(connection, folder):
    (folder / "items").mkdir()
    (folder / "items" / "a.csv").write_text(GOOD)
    (folder / "items" / "b.csv").write_text(GOOD.replace("size", "weight"))

    (problem,) = told(connection, folder)

    assert problem.startswith("items.size: the column is missing in b.csv")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), "holds no .parquet or .csv file"),
        (("a.csv", "b.parquet"), "holds CSV and Parquet files"),
    ],
)
def test_folder_without_one_format_is_refused(connection, folder, names, expected):
    (folder / "items").mkdir()
    for name in names:
        (folder / "items" / name).touch()

    (problem,) = told(connection, folder)

    assert expected in problem


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)
def test_file_without_permission_is_told(connection, folder):
    (folder / "items.csv").write_text(GOOD)
    (folder / "items.csv").chmod(0)

    (problem,) = told(connection, folder)

    assert "items.csv cannot be read (Permission denied)" in problem


def test_dangling_link_is_told(connection, folder):
    (folder / "items.csv").symlink_to(folder / "nowhere.csv")

    (problem,) = told(connection, folder)

    assert "items.csv cannot be read (No such file or directory)" in problem


def test_personal_values_are_never_shown(connection, folder):
    (folder / "items.csv").write_text(GOOD)
    (folder / "people.csv").write_text("person_id,seen_at\n1,PRIVATE\n")
    (wrong_type,) = told(connection, folder)
    (folder / "people.csv").write_text("person_id,seen_at\n1,PRIVATE,PRIVATE\n")
    (wrong_shape,) = told(connection, folder)

    assert wrong_type.startswith("people.seen_at: 1 of the first 1 values")
    assert wrong_shape.startswith("people: people.csv has 3 values in line 2")
    assert "PRIVATE" not in wrong_type + wrong_shape


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_path_that_is_no_folder_is_told(connection, tmp_path, kind):
    path = tmp_path / "raw"
    if kind == "a file":
        path.touch()

    (problem,) = told(connection, path)

    assert problem.startswith("DATA_RAW_PATH: ")
    assert ("is not a folder" if kind == "a file" else "does not exist") in problem


def test_tables_in_the_warehouse_are_checked(connection):
    connection.execute("create schema raw")
    connection.execute(f"create table raw.items as {AS_QUERY}")
    assert check(connection, [ITEMS, PEOPLE], "") == []

    connection.execute("alter table raw.items drop size")
    connection.execute("create table raw.people as select 1 as person_id, 2 as seen_at")
    problems = [str(problem) for problem in check(connection, [ITEMS, PEOPLE], "")]

    assert [problem.split(":")[0] for problem in problems] == [
        "items.size",
        "people.seen_at",
    ]


# ---------------------------------------------------------------- who asks


@pytest.mark.parametrize("source", ["platform", "oulad"])
def test_contracts_can_be_checked(source):
    contract = read_contract(source)

    assert {column.data_type for table in contract for column in table.columns} <= {
        "varchar",
        "timestamp",
        "date",
        "integer",
        "double",
        "boolean",
    }
    assert any(not table.is_optional for table in contract)


def test_contacts_are_personal():
    personal = [table.name for table in read_contract("platform") if table.is_personal]

    assert personal == ["student_contacts"]


def test_attributes_asked_for_are_required():
    with_shoe_size = with_attributes(read_contract("platform"), ["shoe_size"])

    students = next(table for table in with_shoe_size if table.name == "students")
    assert students.columns[-1] == Column("shoe_size", "varchar")


def test_unknown_source_is_refused(connection):
    with pytest.raises(UserError, match="SOURCE_SYSTEM='moodle' has no contract"):
        read_contract("moodle")
    assert "moodle" in report(connection, "moodle", "")


def test_sample_needs_no_files(connection):
    assert report(connection, "sample", "/nowhere") == ""


def test_command_reports_and_fails(tmp_path):
    result = run(
        tmp_path,
        *("python", "-m", "ml.preflight"),
        check=False,
        SOURCE_SYSTEM="oulad",
        DATA_RAW_PATH=str(tmp_path / "nowhere"),
    )

    assert result.returncode == 1
    assert "1 problem.\n  DATA_RAW_PATH: " in result.stdout
    assert "does not exist" in result.stdout
