"""Every model and column is documented, and every figure of the schema is typed."""

import json
import re
from pathlib import Path

import pytest
import yaml

from ml.settings import PROJECT_ROOT
from tests.pipeline import run

MODELS = PROJECT_ROOT / "dbt_project" / "models"


@pytest.fixture(scope="module", params=["sample", "oulad"])
def manifest(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict:
    scratch = tmp_path_factory.mktemp(request.param)
    run(scratch, "dbt", "parse", SOURCE_SYSTEM=request.param, INCLUDE_ATTRIBUTES="true")
    return json.loads((scratch / "target" / "manifest.json").read_text())


def documented(manifest: dict, *kinds: str) -> list[dict]:
    nodes = [*manifest["nodes"].values(), *manifest["sources"].values()]
    return [node for node in nodes if node["resource_type"] in kinds]


def test_every_model_seed_and_source_has_a_description(manifest: dict) -> None:
    nodes = documented(manifest, "model", "seed", "source")
    assert len(nodes) > 50
    assert [node["name"] for node in nodes if not node["description"].strip()] == []


def test_every_listed_column_has_a_description(manifest: dict) -> None:
    missing = [
        f"{node['name']}.{column['name']}"
        for node in documented(manifest, "model", "seed", "source")
        for column in node["columns"].values()
        if not column["description"].strip()
    ]
    assert missing == []


def test_every_model_states_its_grain(manifest: dict) -> None:
    """`One row per …`, or the one row that there is."""
    silent = [
        node["name"]
        for node in documented(manifest, "model")
        if "one row" not in node["description"].lower()
        and "the one row" not in node["description"].lower()
    ]
    assert silent == []


def test_what_others_read_has_an_enforced_contract(manifest: dict) -> None:
    open_ended = [
        node["name"]
        for node in documented(manifest, "model")
        if node["schema"] in ("main", "ml", "personal", "quarantine")
        and Path(node["original_file_path"]).parts[2] != "staging"
        and not node["config"]["contract"]["enforced"]
    ]
    # Attributes come on top of the features' contract when they are asked for.
    assert open_ended == ["student_features_14d"]


def test_exposures_name_every_mart(manifest: dict) -> None:
    read = {
        parent
        for exposure in manifest["exposures"].values()
        for parent in exposure["depends_on"]["nodes"]
    }
    marts = {
        node["unique_id"]
        for node in documented(manifest, "model")
        if Path(node["original_file_path"]).parent == Path("dbt_project/models/marts")
    }
    assert marts <= read


def test_yaml_files_name_no_model_that_is_gone() -> None:
    files = {path.stem for path in MODELS.rglob("*.sql")}
    listed = {
        model["name"]
        for path in MODELS.rglob("_*.yml")
        for model in (yaml.safe_load(path.read_text()) or {}).get("models", [])
    }
    assert listed - files == set()
    assert files - listed == set()


def test_other_warehouses_are_told_every_dispatched_macro() -> None:
    """The page lists exactly those, and for which engines each is written."""
    macros = PROJECT_ROOT / "dbt_project" / "macros"
    sql = "\n".join(path.read_text() for path in macros.rglob("*.sql"))
    written = {
        name: ", ".join(sorted(re.findall(rf"macro ([a-z]+)__{name}\b", sql)))
        for name in re.findall(r"adapter\.dispatch\(\s*['\"](\w+)", sql)
    }
    page = (PROJECT_ROOT / "docs" / "other-warehouses.md").read_text()
    table = page.split("## Dispatched macros")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", table, re.MULTILINE)
    assert len(written) > 10
    assert dict(listed) == written
    assert len(listed) == len(written)
