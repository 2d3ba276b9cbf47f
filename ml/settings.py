"""The settings of the pipeline: read once, checked, the same as in dbt.

`dbt_project/macros/settings.sql` reads the shared variables with the same
names, defaults and rules; `.env.example` documents each.
"""

import os
import re
from datetime import date
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PROJECT_ROOT = Path(__file__).resolve().parents[1]
STAGING_FOLDER = PROJECT_ROOT / "dbt_project" / "models" / "staging"

TARGET_DEFINITIONS = (
    "course_repurchased",
    "assessment_not_passed",
    "assessment_missed",
)
SECRETS = (
    "google_api_key",
    "intervene_store",
    "smtp_password",
    "sms_target",
    "in_app_target",
    "review_tokens",
)
SMTP_SECURITY = ("starttls", "tls", "none")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
TRUE_WORDS = ("true", "1", "yes", "on")
FALSE_WORDS = ("false", "0", "no", "off", "")

# What a refused value is told. One line per variable that can be wrong.
ALLOWED = {
    "observation_window_days": "use a whole number from 2 to 365",
    "prediction_leads": "use whole numbers from 0 to 365 with commas between them",
    "include_attributes": "use true or false",
    "as_of_date": "use a day as YYYY-MM-DD, or nothing",
    "test_from": "use a day as YYYY-MM-DD, or nothing",
    "prediction_threshold": "use a number from 0 to 1, or nothing",
    "confidence_threshold": "use a number from 0 to 1, or nothing",
    "fairness_max_gap": "use a number from 0 to 1, or nothing",
    "flag_capacity": "use a whole number from 1 to 1000000, or nothing",
    "advisors": "use a whole number from 1 to 100000",
    "contact_cost": "use a number from 0 to 1000000, or nothing",
    "pass_value": "use a number above 0, at most 1000000000, or nothing",
    "contact_effect": "use a number from 0 to 1, or nothing",
    "model_n_estimators": "use a whole number from 1 to 5000, or nothing",
    "model_max_depth": "use a whole number from 1 to 15, or nothing",
    "model_learning_rate": "use a number above 0, at most 1, or nothing",
    "model_subsample": "use a number above 0, at most 1, or nothing",
    "model_scale_pos_weight": "use a number above 0, at most 1000, or nothing",
    "target_definition": "use one of " + ", ".join(TARGET_DEFINITIONS),
    "intervene_stop": "use true or false",
    "quiet_hours": "use two times such as 21:00-08:00, or nothing",
    "delivery_timezone": "use a time zone such as Europe/Oslo",
    "contact_cap": "use a whole number from 1 to 1000, or nothing",
    "contact_cap_days": "use a whole number from 1 to 365",
    "smtp_port": "use a whole number from 1 to 65535",
    "smtp_security": "use one of " + ", ".join(SMTP_SECURITY),
    "mail_from": "use an address such as Course team <advice@example.org>, or nothing",
    "unsubscribe_url": "use an https:// address, or nothing",
    "review_host": "use a name or an address of this machine",
    "review_port": "use a whole number from 0 to 65535",
    "review_tokens": "use name:token with commas between them, each name and token "
    "once, tokens of at least 16 letters, digits, - or _; or nothing",
    "review_url": "use an address that begins with http:// or https://, without a path",
    "google_gemini_base_url": "use an address that begins with http:// or https://",
    "gemini_models": "use names of models with commas between them",
    "gemini_concurrency": "use a whole number from 1 to 256",
    "gemini_requests_per_minute": "use a whole number from 1 to 1000000",
    "gemini_tokens_per_minute": "use a whole number from 1 to 1000000000",
    "gemini_timeout_seconds": "use a number above 0, at most 600",
    "gemini_max_requests": "use a whole number from 0, or nothing",
    "gemini_max_tokens": "use a whole number from 0, or nothing",
    "gemini_max_cost": "use a number from 0 to 1000000, or nothing",
    "gemini_keep_requests": "use true or false",
    "retention_days": "use a whole number from 1 to 36500, or nothing",
    "spark_warehouse_path": "use the path of a folder",
    "spark_master": "use a Spark master such as local[*] or spark://host:7077",
    "spark_driver_memory": "use a size such as 4g or 900m",
    "spark_driver_host": "use a name or an address of this machine",
    "spark_shuffle_partitions": "use a whole number from 1 to 100000",
    "log_level": "use one of " + ", ".join(LOG_LEVELS),
    "warehouse_path": "use the path of a DuckDB file not called main.duckdb",
    "models_path": "use the path of a folder",
    "data_processed_path": "use the path of a folder",
}


class UserError(Exception):
    """Something the user can put right: commands print it without a traceback."""


class SettingsError(UserError):
    """One or more settings have values that are not allowed."""


def known_sources() -> tuple[str, ...]:
    """Names that SOURCE_SYSTEM may have: a folder of staging models each."""
    folders = {path.name for path in STAGING_FOLDER.glob("*") if path.is_dir()}
    return tuple(sorted(folders | {"sample", "platform", "oulad"}))


class Settings(BaseSettings):
    """Every setting; the environment beats `.env`, which beats the default."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    source_system: str = "sample"
    data_raw_path: str = ""
    data_processed_path: Path = Path("data/published")
    warehouse_path: Path = Path("data/warehouse.duckdb")
    models_path: Path = Path("data/models")
    forgotten_path: str = ""
    retention_days: Annotated[int, Field(ge=1, le=36_500)] | None = None

    target_definition: str = ""
    observation_window_days: Annotated[int, Field(ge=2, le=365)] = 14
    prediction_leads: Annotated[tuple[int, ...], NoDecode] = (28, 21, 14, 7)
    include_attributes: bool = False
    as_of_date: date | None = None
    test_from: date | None = None

    prediction_threshold: float | None = None
    confidence_threshold: float | None = 0.0
    flag_capacity: Annotated[int, Field(ge=1, le=1_000_000)] | None = 50
    advisors: Annotated[int, Field(ge=1, le=100_000)] = 1
    contact_cost: Annotated[float, Field(ge=0, le=1e6)] | None = 5.0
    pass_value: Annotated[float, Field(gt=0, le=1e9)] | None = 200.0
    contact_effect: float | None = 0.05

    fairness_max_gap: float | None = None
    model_n_estimators: Annotated[int, Field(ge=1, le=5000)] | None = None
    model_max_depth: Annotated[int, Field(ge=1, le=15)] | None = None
    model_learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    model_subsample: Annotated[float, Field(gt=0, le=1)] | None = None
    model_scale_pos_weight: Annotated[float, Field(gt=0, le=1000)] | None = None

    google_api_key: SecretStr | None = None
    google_gemini_base_url: str = ""
    gemini_models: Annotated[tuple[str, ...], NoDecode] = (
        "gemini-2.5-flash",
        "gemini-2.5-flash-lite",
    )
    gemini_concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    gemini_requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    gemini_tokens_per_minute: Annotated[int, Field(ge=1, le=10**9)] = 4_000_000
    gemini_timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 60.0
    gemini_max_requests: Annotated[int, Field(ge=0, le=10**9)] | None = None
    gemini_max_tokens: Annotated[int, Field(ge=0, le=10**12)] | None = None
    gemini_max_cost: Annotated[float, Field(ge=0, le=1e6)] | None = None
    gemini_prices: Path | None = None
    gemini_keep_requests: bool = False
    # Secret, because the URL of a PostgreSQL may hold a password.
    intervene_store: SecretStr = SecretStr("")

    intervene_stop: bool = False
    quiet_hours: str = "21:00-08:00"
    delivery_timezone: str = "UTC"
    contact_cap: Annotated[int, Field(ge=1, le=1000)] | None = 2
    contact_cap_days: Annotated[int, Field(ge=1, le=365)] = 7
    campaigns: Path | None = None
    review_host: Annotated[str, Field(pattern=r"^[\w.:-]+$")] = "127.0.0.1"
    review_port: Annotated[int, Field(ge=0, le=65535)] = 8765
    review_tokens: SecretStr = SecretStr("")
    review_url: str = ""
    smtp_host: str = ""
    smtp_port: Annotated[int, Field(ge=1, le=65535)] = 587
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    smtp_user: str = ""
    smtp_password: SecretStr = SecretStr("")
    mail_from: str = ""
    unsubscribe_url: str = ""
    mail_folder: str = ""
    # Secret, because a target of apprise holds the service's key.
    sms_target: SecretStr = SecretStr("")
    in_app_target: SecretStr = SecretStr("")
    drop_folder: str = ""

    # Text, because it may be the address of a file system that all workers share.
    spark_warehouse_path: str = "data/spark"
    spark_master: str = "local[*]"
    spark_driver_memory: Annotated[str, Field(pattern=r"^[1-9]\d*[mg]$")] = "4g"
    spark_driver_host: Annotated[str, Field(pattern=r"^[\w.:-]+$")] = "127.0.0.1"
    spark_shuffle_partitions: Annotated[int, Field(ge=1, le=100_000)] = 16

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("*", mode="before")
    @classmethod
    def _strip(cls, value: Any) -> Any:
        return value.strip() if isinstance(value, str) else value

    @field_validator(
        "as_of_date",
        "test_from",
        "prediction_threshold",
        "model_n_estimators",
        "model_max_depth",
        "model_learning_rate",
        "model_subsample",
        "model_scale_pos_weight",
        "google_api_key",
        "gemini_max_requests",
        "gemini_max_tokens",
        "gemini_max_cost",
        "gemini_prices",
        "confidence_threshold",
        "fairness_max_gap",
        "flag_capacity",
        "contact_cost",
        "pass_value",
        "contact_effect",
        "contact_cap",
        "retention_days",
        "campaigns",
        mode="before",
    )
    @classmethod
    def _nothing_is_none(cls, value: Any) -> Any:
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator("source_system")
    @classmethod
    def _is_known_source(cls, value: str) -> str:
        if value not in known_sources():
            raise ValueError("use one of " + ", ".join(known_sources()))
        return value

    @field_validator("target_definition")
    @classmethod
    def _is_known_target(cls, value: str) -> str:
        if value and value not in TARGET_DEFINITIONS:
            raise ValueError(ALLOWED["target_definition"])
        return value

    @field_validator("prediction_leads", mode="before")
    @classmethod
    def _parse_leads(cls, value: Any) -> tuple[int, ...]:
        items = value.split(",") if isinstance(value, str) else list(value)
        leads = {_whole_number(item) for item in items}
        return tuple(sorted(leads, reverse=True))

    @field_validator("observation_window_days", mode="before")
    @classmethod
    def _parse_window(cls, value: Any) -> int:
        return _whole_number(value)

    @field_validator("gemini_models", mode="before")
    @classmethod
    def _parse_models(cls, value: Any) -> tuple[str, ...]:
        items = value.split(",") if isinstance(value, str) else list(value)
        models = tuple(item.strip() for item in items)
        if not all(re.fullmatch(r"[\w.-]+", model) for model in models):
            raise ValueError(ALLOWED["gemini_models"])
        return tuple(dict.fromkeys(models))

    @field_validator("google_gemini_base_url")
    @classmethod
    def _is_web_address(cls, value: str) -> str:
        if value and not re.match(r"https?://[^/\s]", value):
            raise ValueError(ALLOWED["google_gemini_base_url"])
        return value

    @field_validator("gemini_prices", "campaigns", mode="after")
    @classmethod
    def _file_from_project_root(cls, value: Path | None) -> Path | None:
        return value and PROJECT_ROOT / value.expanduser()

    @field_validator(
        "include_attributes", "gemini_keep_requests", "intervene_stop", mode="before"
    )
    @classmethod
    def _parse_boolean(cls, value: Any) -> bool:
        text = str(value).strip().lower()
        if text not in TRUE_WORDS + FALSE_WORDS:
            raise ValueError(ALLOWED["include_attributes"])
        return text in TRUE_WORDS

    @field_validator("as_of_date", "test_from", mode="before")
    @classmethod
    def _parse_day(cls, value: Any) -> date | None:
        if value is None or isinstance(value, date):
            return value
        if not str(value).strip():
            return None
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", str(value).strip()):
            raise ValueError(ALLOWED["as_of_date"])
        return date.fromisoformat(str(value).strip())

    @field_validator(
        "prediction_threshold",
        "confidence_threshold",
        "fairness_max_gap",
        "contact_effect",
        mode="before",
    )
    @classmethod
    def _parse_share(cls, value: Any) -> float | None:
        if value is None or str(value).strip() == "":
            return None
        text = str(value).strip()
        if not re.fullmatch(r"[01]|[01]?\.\d+", text) or float(text) > 1:
            raise ValueError(ALLOWED["prediction_threshold"])
        return float(text)

    @field_validator("quiet_hours")
    @classmethod
    def _is_two_times(cls, value: str) -> str:
        hour = r"([01]\d|2[0-3]):[0-5]\d"
        if value and not re.fullmatch(f"{hour}-{hour}", value):
            raise ValueError(ALLOWED["quiet_hours"])
        return value

    @field_validator("delivery_timezone")
    @classmethod
    def _is_known_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError(ALLOWED["delivery_timezone"]) from None
        return value

    @field_validator("mail_from")
    @classmethod
    def _is_one_address(cls, value: str) -> str:
        if value and not re.fullmatch(r"[^@\s]+@[^@\s]+", parseaddr(value)[1]):
            raise ValueError(ALLOWED["mail_from"])
        return value

    @field_validator("unsubscribe_url")
    @classmethod
    def _is_https(cls, value: str) -> str:
        # Mail programs call it by themselves, with the message's id in it.
        if value and not re.fullmatch(r"https://[^\s<>]+", value):
            raise ValueError(ALLOWED["unsubscribe_url"])
        return value

    @field_validator("review_tokens")
    @classmethod
    def _are_tokens(cls, value: SecretStr) -> SecretStr:
        pairs = [item.strip() for item in value.get_secret_value().split(",")]
        good = [re.fullmatch(r"([\w.@-]{1,60}):([\w-]{16,})", pair) for pair in pairs]
        for part in (1, 2):
            found = [match[part] for match in good if match]
            if pairs != [""] and len(set(found)) < len(pairs):
                raise ValueError(ALLOWED["review_tokens"])
        return value

    @field_validator("review_url")
    @classmethod
    def _has_no_path(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[\w.:-]+/?", value):
            raise ValueError(ALLOWED["review_url"])
        return value.rstrip("/").lower()

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.strip().upper() if isinstance(value, str) else value

    @field_validator(
        "warehouse_path", "models_path", "data_processed_path", mode="before"
    )
    @classmethod
    def _path_from_project_root(cls, value: Any) -> Path:
        """A relative path counts from the project's folder, as it does for dbt."""
        if not str(value).strip():
            raise ValueError("it is empty")
        return PROJECT_ROOT / Path(str(value).strip()).expanduser()

    @field_validator("spark_warehouse_path")
    @classmethod
    def _folder_from_project_root(cls, value: str) -> str:
        if not value:
            raise ValueError(ALLOWED["spark_warehouse_path"])
        if re.match(r"\w+://", value):
            return value.rstrip("/")
        return str(PROJECT_ROOT / Path(value).expanduser())

    @field_validator("spark_master")
    @classmethod
    def _is_spark_master(cls, value: str) -> str:
        if not re.match(r"(local|spark://|yarn|k8s://)", value):
            raise ValueError(ALLOWED["spark_master"])
        return value

    @field_validator("warehouse_path")
    @classmethod
    def _is_usable_warehouse(cls, value: Path) -> Path:
        # DuckDB would name the catalog main, as the schema is: nothing resolves.
        if value.name == "main.duckdb":
            raise ValueError(ALLOWED["warehouse_path"])
        return value

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, values: Any) -> Any:
        """Let defaults that depend on other settings or on the root be computed."""
        if isinstance(values, dict):
            source = str(values.get("source_system", "sample")).strip()
            if not str(values.get("target_definition", "")).strip():
                missed = source == "oulad"
                values["target_definition"] = (
                    "assessment_missed" if missed else "course_repurchased"
                )
            for name in (
                "warehouse_path",
                "models_path",
                "data_processed_path",
                "spark_warehouse_path",
            ):
                values.setdefault(name, cls.model_fields[name].default)
        return values

    @property
    def fixed_parameters(self) -> dict[str, float]:
        """Model parameters that a MODEL_ variable fixes; the search skips them."""
        prefix = "model_"
        values = {
            name.removeprefix(prefix): getattr(self, name)
            for name in type(self).model_fields
            if name.startswith(prefix) and name != "models_path"
        }
        return {name: value for name, value in values.items() if value is not None}

    @property
    def forgotten_folder(self) -> Path:
        """FORGOTTEN_PATH, or the folder `forgotten` beside the warehouse."""
        given = Path(self.forgotten_path).expanduser()
        beside = self.warehouse_path.with_name("forgotten")
        return PROJECT_ROOT / given if self.forgotten_path else beside

    @property
    def leads_text(self) -> str:
        """The leads as `pipeline_settings` holds them: `28,21,14,7`."""
        return ",".join(str(lead) for lead in self.prediction_leads)

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, for a dbt run under the same."""
        shown = {
            "source_system": self.source_system,
            "data_raw_path": self.data_raw_path,
            "warehouse_path": str(self.warehouse_path),
            "target_definition": self.target_definition,
            "observation_window_days": str(self.observation_window_days),
            "prediction_leads": self.leads_text,
            "include_attributes": str(self.include_attributes).lower(),
            "as_of_date": self.as_of_date.isoformat() if self.as_of_date else "",
            "prediction_threshold": _as_text(self.prediction_threshold),
            "confidence_threshold": _as_text(self.confidence_threshold),
            "flag_capacity": _as_text(self.flag_capacity),
            "fairness_max_gap": _as_text(self.fairness_max_gap),
            "forgotten_path": self.forgotten_path,
            "spark_warehouse_path": self.spark_warehouse_path,
            "spark_master": self.spark_master,
            "spark_driver_memory": self.spark_driver_memory,
            "spark_driver_host": self.spark_driver_host,
            "spark_shuffle_partitions": str(self.spark_shuffle_partitions),
        }
        return {name.upper(): value for name, value in shown.items()}


def load_settings(env_file: Path | None = PROJECT_ROOT / ".env") -> Settings:
    """Read the environment and `.env`.

    Parameters
    ----------
    env_file
        Read if it exists; None reads the environment alone.

    Raises
    ------
    SettingsError
        Naming every variable with a value that is not allowed, and what is.
    """
    try:
        # mypy does not know this argument of pydantic-settings.
        return Settings(_env_file=env_file)  # type: ignore[call-arg]
    except ValidationError as error:
        raise SettingsError(_describe(error)) from None


def _as_text(value: float | None) -> str:
    return "" if value is None else f"{value:.12f}".rstrip("0").rstrip(".")


def _whole_number(value: Any) -> int:
    text = str(value).strip()
    if not re.fullmatch(r"\d{1,4}", text) or int(text) > 365:
        raise ValueError("not a whole number from 0 to 365")
    return int(text)


def _describe(error: ValidationError) -> str:
    """All wrong values at once; the API key is never shown."""
    lines = {}
    for problem in error.errors():
        name = str(problem["loc"][0])
        allowed = ALLOWED.get(name) or problem["msg"].removeprefix("Value error, ")
        value = "***" if name in SECRETS else problem["input"]
        lines[name] = f"  {name.upper()}={str(value)!r}: {allowed}"
    head = "Settings with values that are not allowed:"
    tail = "Change them in the environment or in .env (.env.example explains each)."
    return os.linesep.join([head, *lines.values(), tail])
