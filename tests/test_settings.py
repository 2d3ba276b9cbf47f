"""Settings: the same names, defaults and rules everywhere, all errors at once."""

import re
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest

from ml.settings import PROJECT_ROOT, Settings, SettingsError, load_settings

MACRO = PROJECT_ROOT / "dbt_project" / "macros" / "settings.sql"
EXAMPLE = PROJECT_ROOT / ".env.example"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def _example() -> dict[str, str]:
    lines = EXAMPLE.read_text().splitlines()
    pairs = [line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line)]
    return dict(pairs)


def _macro_defaults() -> dict[str, str]:
    block = re.search(r"set defaults = \{(.*?)\}", MACRO.read_text(), re.DOTALL)
    assert block
    return dict(re.findall(r"'(\w+)': '([^']*)'", block[1]))


def test_example_documents_every_setting_and_no_other() -> None:
    assert {name.lower() for name in _example()} == set(Settings.model_fields)


def test_example_holds_the_defaults() -> None:
    assert load_settings(EXAMPLE) == load_settings(None)


def test_every_setting_of_the_example_has_a_comment_above() -> None:
    lines = EXAMPLE.read_text().splitlines()
    for above, line in pairwise(lines):
        if re.match(r"[A-Z_]+=", line):
            assert above.startswith("# "), line


def test_dbt_knows_the_same_names_and_defaults() -> None:
    example = _example()
    shared = _macro_defaults()
    assert shared
    assert {name: example[name.upper()] for name in shared} == shared


@pytest.mark.parametrize(
    ("source", "target"),
    [("oulad", "assessment_missed"), ("platform", "course_repurchased")],
)
def test_target_depends_on_the_source(
    monkeypatch: pytest.MonkeyPatch, source: str, target: str
) -> None:
    monkeypatch.setenv("SOURCE_SYSTEM", source)
    assert load_settings(None).target_definition == target


def test_leads_are_unique_and_the_longest_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREDICTION_LEADS", "7, 28,7,0")
    assert load_settings(None).prediction_leads == (28, 7, 0)
    assert load_settings(None).leads_text == "28,7,0"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("1", True),
        ("Yes", True),
        ("on", True),
        ("false", False),
        ("0", False),
        ("NO", False),
        ("off", False),
        ("", False),
    ],
)
def test_booleans_are_parsed(
    monkeypatch: pytest.MonkeyPatch, text: str, value: bool
) -> None:
    monkeypatch.setenv("INCLUDE_ATTRIBUTES", text)
    assert load_settings(None).include_attributes is value


WRONG = {
    "SOURCE_SYSTEM": "elsewhere",
    "TARGET_DEFINITION": "grumpy",
    "OBSERVATION_WINDOW_DAYS": "1",
    "PREDICTION_LEADS": "14,soon",
    "INCLUDE_ATTRIBUTES": "maybe",
    "AS_OF_DATE": "2014-02-31",
    "TEST_FROM": "1 May",
    "PREDICTION_THRESHOLD": "1.5",
    "CONFIDENCE_THRESHOLD": "-1",
    "FLAG_CAPACITY": "0",
    "RETENTION_DAYS": "0",
    "ADVISORS": "0",
    "CONTACT_COST": "-1",
    "PASS_VALUE": "0",
    "CONTACT_EFFECT": "1.5",
    "FAIRNESS_MAX_GAP": "2",
    "MODEL_N_ESTIMATORS": "0",
    "MODEL_MAX_DEPTH": "deep",
    "MODEL_LEARNING_RATE": "0",
    "MODEL_SUBSAMPLE": "2",
    "MODEL_SCALE_POS_WEIGHT": "0",
    "INTERVENE_STOP": "perhaps",
    "QUIET_HOURS": "9 to 5",
    "DELIVERY_TIMEZONE": "Mars/Base",
    "CONTACT_CAP": "0",
    "CONTACT_CAP_DAYS": "0",
    "SMTP_PORT": "70000",
    "SMTP_SECURITY": "perhaps",
    "MAIL_FROM": "nobody",
    "UNSUBSCRIBE_URL": "http://example.org",
    "REVIEW_HOST": "two words",
    "REVIEW_PORT": "70000",
    "REVIEW_TOKENS": "anna:a-long-enough-token,anna:another-long-token",
    "REVIEW_URL": "review.example.org",
    "GOOGLE_GEMINI_BASE_URL": "gemini",
    "GEMINI_MODELS": "one,,two",
    "GEMINI_CONCURRENCY": "0",
    "GEMINI_REQUESTS_PER_MINUTE": "0",
    "GEMINI_TOKENS_PER_MINUTE": "0",
    "GEMINI_TIMEOUT_SECONDS": "0",
    "GEMINI_MAX_REQUESTS": "-1",
    "GEMINI_MAX_TOKENS": "many",
    "GEMINI_MAX_COST": "-1",
    "GEMINI_KEEP_REQUESTS": "maybe",
    "SPARK_WAREHOUSE_PATH": " ",
    "SPARK_MASTER": "somewhere",
    "SPARK_DRIVER_MEMORY": "much",
    "SPARK_DRIVER_HOST": "two words",
    "SPARK_SHUFFLE_PARTITIONS": "0",
    "LOG_LEVEL": "loud",
    "WAREHOUSE_PATH": "main.duckdb",
    "MODELS_PATH": " ",
}


def test_all_wrong_values_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WRONG.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        load_settings(None)
    lines = str(error.value).splitlines()
    told = [line.split("=")[0].strip() for line in lines[1:-1]]
    assert sorted(told) == sorted(WRONG)
    assert all(": use " in line for line in lines[1:-1])


@pytest.mark.parametrize(("name", "value"), WRONG.items())
def test_each_wrong_value_is_refused_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        load_settings(None)


def test_env_file_is_read_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("AS_OF_DATE=2014-06-01\nOBSERVATION_WINDOW_DAYS=7\nOTHER=1\n")
    monkeypatch.setenv("OBSERVATION_WINDOW_DAYS", "21")
    settings = load_settings(env_file)
    assert settings.as_of_date == date(2014, 6, 1)
    assert settings.observation_window_days == 21


def test_relative_paths_count_from_the_project(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = PROJECT_ROOT / "data" / "warehouse.duckdb"
    assert load_settings(None).warehouse_path == expected


def test_a_model_variable_fixes_its_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_MAX_DEPTH", "4")
    monkeypatch.setenv("MODEL_SUBSAMPLE", "0.5")
    fixed = load_settings(None).fixed_parameters
    assert fixed == {"max_depth": 4, "subsample": 0.5}


def test_the_api_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "very-secret")
    assert "very-secret" not in repr(load_settings(None))
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with pytest.raises(SettingsError) as error:
        load_settings(None)
    assert "very-secret" not in str(error.value)
