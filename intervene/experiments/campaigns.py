"""Campaigns: messages sent as an experiment, declared in a file.

The file (CAMPAIGNS, TOML) says who may be in a campaign, which arms there are and
how students are divided. Here it is read and checked, and an arm is drawn; the
store keeps what was drawn (`assignments`), `power` says how many students a campaign
needs, `effects` what came of it.
"""

import hashlib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from intervene.drafting.drafter import CHANNELS, LOCALES, TONES
from ml.settings import PROJECT_ROOT, Settings, UserError

DRAFTERS = ("template", "gemini")
METRICS = ("at_risk", "studied_within_14_days")
BANDS = ("high", "medium", "low")
ZONES = ("dormant", "warning", "safe")
KINDS = ("exam", "assignment", "quiz")
LONGEST_WEEKS = 26
NO_CAMPAIGN = "early-alert"  # what drafts without one have instead
STUDY_DAYS = 14  # of the metric studied_within_14_days

# What a refused value is told, by the last name in its place.
ALLOWED = {
    "name": "use lowercase letters, digits and hyphens, at most 60",
    "start": "use a day such as 2026-02-01",
    "end": "use a day such as 2026-06-01",
    "metric": "use one of " + ", ".join(METRICS),
    "minimum_detectable_effect": "use a difference in rates above 0, below 1",
    "base_rate": "use a rate above 0, below 1",
    "power": "use a number from 0.5 to 0.99",
    "alpha": "use a number from 0.001 to 0.2",
    "weight": "use a number above 0, at most 1000",
    "message": "use true or false",
    "tone": "use one of " + ", ".join(TONES),
    "channel": "use one of " + ", ".join(CHANNELS),
    "drafter": "use one of " + ", ".join(DRAFTERS),
    "course_ids": "use a list of course ids",
    "assessment_kinds": "use a list of " + ", ".join(KINDS),
    "engagement_zones": "use a list of " + ", ".join(ZONES),
    "risk_bands": "use a list of " + ", ".join(BANDS),
    "locales": "use a list of " + ", ".join(LOCALES),
    "min_lead_days": "use a whole number from 0 to 365",
    "max_lead_days": "use a whole number from 0 to 365",
    "min_risk": "use a number from 0 to 1",
    "max_risk": "use a number from 0 to 1",
    "opted_out": "use a difference in rates from 0 to 1",
    "complained": "use a difference in rates from 0 to 1",
    "contact_cost": "use a number from 0 to 1000000",
    "pass_value": "use a number above 0, at most 1000000000",
    "allow_underpowered": "use true or false",
}


class CampaignError(UserError):
    """The campaigns file cannot be used as it is."""


class _Declared(BaseModel):
    # Strict, because "true" is a typo for true, and 1 is not a day.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Share = Annotated[float, Field(ge=0, le=1)]
Days = Annotated[int, Field(ge=0, le=365)]


class Audience(_Declared):
    """Who may be in: conditions on a flag, all of which have to hold.

    A condition that is not declared holds for everybody. A flag whose value is not
    known meets no condition on it.
    """

    course_ids: list[str] | None = None
    assessment_kinds: list[Literal["exam", "assignment", "quiz"]] | None = None
    engagement_zones: list[Literal["dormant", "warning", "safe"]] | None = None
    risk_bands: list[Literal["high", "medium", "low"]] | None = None
    locales: list[str] | None = None
    min_lead_days: Days | None = None
    max_lead_days: Days | None = None
    min_risk: Share | None = None
    max_risk: Share | None = None

    @field_validator("locales")
    @classmethod
    def _are_known(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and not set(value) <= set(LOCALES):
            raise ValueError(ALLOWED["locales"])
        return value

    @model_validator(mode="after")
    def _somebody_fits(self) -> "Audience":
        wrong = [
            f"{name} is empty: name some, or leave it out"
            for name, value in self
            if value == []
        ]
        for low, high in (("min_lead_days", "max_lead_days"), ("min_risk", "max_risk")):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                wrong.append(f"{low} {least:g} is above {high} {most:g}")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


class Arm(_Declared):
    """One way to treat students; what it leaves open is chosen by policy."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,59}$")]
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    message: bool = True
    tone: Literal["supportive", "urgent", "resource_focused"] | None = None
    channel: Literal["email", "sms", "in_app"] | None = None
    drafter: Literal["template", "gemini"] | None = None

    @model_validator(mode="after")
    def _control_says_nothing(self) -> "Arm":
        if not self.message and (self.tone or self.channel or self.drafter):
            raise ValueError("an arm without a message has no tone, channel or drafter")
        return self


class Guardrails(_Declared):
    """By how much an arm may raise each rate above the control's."""

    opted_out: Share = 0.01
    complained: Share = 0.005


class Campaign(_Declared):
    """One campaign as it is declared."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,59}$")]
    start: date
    end: date
    audience: Audience = Audience()
    arms: list[Arm]
    metric: Literal["at_risk", "studied_within_14_days"] = "at_risk"
    minimum_detectable_effect: Annotated[float, Field(gt=0, lt=1)]
    base_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    power: Annotated[float, Field(ge=0.5, le=0.99)] = 0.8
    alpha: Annotated[float, Field(ge=0.001, le=0.2)] = 0.05
    guardrails: Guardrails = Guardrails()
    contact_cost: Annotated[float, Field(ge=0, le=1e6)] | None = None
    pass_value: Annotated[float, Field(gt=0, le=1e9)] | None = None
    allow_underpowered: bool = False

    @model_validator(mode="before")
    @classmethod
    def _ends_somewhere(cls, values: Any) -> Any:
        """Without an end nobody could say when the result is final."""
        if isinstance(values, dict) and "end" not in values:
            start = values.get("start")
            if isinstance(start, date):
                values = values | {"end": start + timedelta(weeks=LONGEST_WEEKS)}
        return values

    @model_validator(mode="after")
    def _is_an_experiment(self) -> "Campaign":
        names = [arm.name for arm in self.arms]
        wrong = []
        if self.end <= self.start:
            wrong.append(f"end {self.end} is not after start {self.start}")
        if len(names) < 2 or len(set(names)) < len(names):
            wrong.append("arms: use two or more, each with a name of its own")
        if sum(not arm.message for arm in self.arms) != 1:
            wrong.append("arms: exactly one is the control, with message = false")
        if self.name == NO_CAMPAIGN:
            wrong.append(f"name {self.name} is that of drafts without a campaign")
        if "all" in names:
            wrong.append("arms: `all` stands for all of them, use another name")
        if self.metric != "at_risk" and self.base_rate is None:
            wrong.append(f"metric {self.metric} needs base_rate: it is not measured")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @property
    def control(self) -> Arm:
        """The arm without a message."""
        return next(arm for arm in self.arms if not arm.message)

    @property
    def treatments(self) -> list[Arm]:
        """The other arms."""
        return [arm for arm in self.arms if arm.message]

    @property
    def lower_is_better(self) -> bool:
        """Whether a fall of the metric is what the campaign hopes for."""
        return self.metric == "at_risk"

    def share(self, arm: Arm) -> float:
        """Share of the students that an arm gets, 0 to 1."""
        return arm.weight / sum(other.weight for other in self.arms)

    def draw(self, source_system: str, student_id: str) -> Arm:
        """The student's arm: the same on every day and every machine.

        SHA-256 of campaign, source and student, as a number from 0 to 1, falls into
        the share of one arm. The campaign's name is the salt, so that the arms of two
        campaigns have nothing to do with each other.
        """
        place = json.dumps([self.name, source_system, student_id], ensure_ascii=False)
        digest = hashlib.sha256(place.encode()).digest()
        drawn = int.from_bytes(digest[:8], "big") / 2**64
        for arm, upper in zip(
            self.arms, accumulate(self.share(arm) for arm in self.arms), strict=True
        ):
            if drawn < upper:
                return arm
        return self.arms[-1]

    def runs_on(self, day: date) -> bool:
        """Whether students flagged on this day may be assigned."""
        return self.start <= day < self.end

    @property
    def design(self) -> str:
        """Everything that must not change once a student is assigned, as JSON."""
        fields = self.model_dump(mode="json", exclude={"allow_underpowered"})
        return json.dumps(fields, ensure_ascii=False, sort_keys=True)

    @property
    def design_hash(self) -> str:
        """SHA-256 of the design."""
        return hashlib.sha256(self.design.encode()).hexdigest()

    @classmethod
    def from_design(cls, design: str) -> "Campaign":
        """The campaign that a kept design is of."""
        fields = json.loads(design)
        days = {name: date.fromisoformat(fields[name]) for name in ("start", "end")}
        return cls.model_validate(fields | days)


@dataclass(frozen=True)
class Candidate:
    """A row of `flagged_students`, and what the contact adds, for an audience."""

    student_id: str
    course_id: str
    course_run_id: str
    assessment_id: str
    assessment_kind: str | None
    due_at: datetime | None
    as_of_date: date
    lead_days: int | None
    risk_score: float | None
    risk_band: str | None
    engagement_zone: str | None
    flag_policy: str | None
    run_id: str | None
    locale: str
    has_opted_out: bool


def fits(audience: Audience, student: Candidate) -> bool:
    """Whether a flagged student is in the audience.

    Who has opted out is in none: no arm could do anything.
    """
    lists = (
        (audience.course_ids, student.course_id),
        (audience.assessment_kinds, student.assessment_kind),
        (audience.engagement_zones, student.engagement_zone),
        (audience.risk_bands, student.risk_band),
        (audience.locales, student.locale),
    )
    ranges = (
        (audience.min_lead_days, audience.max_lead_days, student.lead_days),
        (audience.min_risk, audience.max_risk, student.risk_score),
    )
    return (
        not student.has_opted_out
        and all(allowed is None or value in allowed for allowed, value in lists)
        and all(_is_within(low, high, value) for low, high, value in ranges)
    )


def _is_within(low: float | None, high: float | None, value: float | None) -> bool:
    if low is None and high is None:
        return True
    return value is not None and (
        (low is None or value >= low) and (high is None or value <= high)
    )


def what_changed(before: str, after: str) -> list[str]:
    """What two designs differ in: `place: before -> after`, one line each."""
    old, new = _flat(json.loads(before)), _flat(json.loads(after))
    return [
        f"{place}: {_shown(old.get(place))} -> {_shown(new.get(place))}"
        for place in sorted(old.keys() | new.keys())
        if old.get(place) != new.get(place)
    ]


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        children = {(f"{place}." if place else "") + key: value[key] for key in value}
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        children = {f"{place}[{item['name']}]": item for item in value}
    else:
        return {place: value}
    return {
        name: leaf
        for child, content in children.items()
        for name, leaf in _flat(content, child).items()
    }


def _shown(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)


# ---------------------------------------------------------------- reading


def read_campaigns(settings: Settings) -> list[Campaign]:
    """The declared campaigns, in the order of the file; none without CAMPAIGNS.

    Raises
    ------
    CampaignError
        The file cannot be read; or naming every campaign and field that is wrong,
        and what is allowed.
    """
    if settings.campaigns is None:
        return []
    return parse_campaigns(settings.campaigns)


def parse_campaigns(path: Path) -> list[Campaign]:
    """The campaigns declared in a TOML file; see `read_campaigns`."""
    try:
        with (PROJECT_ROOT / path).open("rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise CampaignError(
            f"CAMPAIGNS={path}: {error.strerror}. Point it at a TOML file like "
            "intervene/experiments/campaigns.example.toml, or leave it empty."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CampaignError(f"CAMPAIGNS={path} is not TOML: {error}.") from None
    entries = document.get("campaign", [])
    problems = [
        f"  {name}: unknown; campaigns begin with [[campaign]]"
        for name in document
        if name != "campaign"
    ]
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise CampaignError(f"CAMPAIGNS={path}: campaigns begin with [[campaign]].")
    found = []
    for number, entry in enumerate(entries, start=1):
        try:
            found.append(Campaign.model_validate(entry))
        except ValidationError as error:
            where = f"campaign {number} ({entry.get('name', 'no name')})"
            problems += [f"  {where}: {line}" for line in _describe(error)]
    problems += _repeated([str(entry.get("name", "")) for entry in entries])
    if problems:
        raise CampaignError(
            f"CAMPAIGNS={path} has declarations that are not allowed:\n"
            + "\n".join(problems)
            + "\ndocs/experiments.md explains each field."
        )
    return found


def _describe(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors():
        field = next((p for p in reversed(problem["loc"]) if isinstance(p, str)), "")
        place = ".".join(str(part) for part in problem["loc"]) or "the campaign"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "missing":
            lines.append(f"{place} is missing: {ALLOWED.get(str(field), 'declare it')}")
        elif problem["type"] == "extra_forbidden":
            lines.append(f"{place}: there is no such field")
        elif problem["type"] == "value_error":
            lines.append(f"{place}: {message}")
        else:
            allowed = ALLOWED.get(str(field), message)
            lines.append(f"{place}={problem['input']!r}: {allowed}")
    return lines


def _repeated(names: Sequence[str]) -> list[str]:
    return [
        f"  name {name!r} is declared {names.count(name)} times: use one for each"
        for name in dict.fromkeys(names)
        if name and names.count(name) > 1
    ]
