"""The drafter that asks Gemini: what leaves, what comes back, what happens if not.

Only `outgoing` decides what a request says about a student. Whatever fails (a
refusal, a broken answer, a limit, a budget, the network) ends in the next model of
the chain and then in the template, so that nobody goes without a draft.
"""

import asyncio
import hashlib
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import pydantic

from intervene.drafting.drafter import (
    MOST_STEPS,
    Context,
    Draft,
    Judge,
    Order,
    TemplateDrafter,
    Written,
    compose,
)
from intervene.drafting.ledger import Ledger, pseudonym
from intervene.drafting.limits import (
    PRICES,
    Budget,
    BudgetSpent,
    RateLimit,
    Usage,
    read_prices,
)
from intervene.drafting.prompts import load_prompt
from ml.settings import Settings, UserError

if TYPE_CHECKING:
    from intervene.drafting.check import Problem

MOST_REVISIONS = 2
MOST_TRIES = 5
# A server that asks for a longer wait is left alone: the next model, or the template.
LONGEST_WAIT = 60.0
FIRST_BACKOFF = 0.5
# A model that gave nothing to so many requests in a row is not asked again.
MOST_FAILURES_IN_A_ROW = 5
MOST_OUTPUT_TOKENS = 2048
USUAL_OUTPUT_TOKENS = 250
# Gemini's tokens are about four characters of English; bytes over three errs upwards.
BYTES_PER_TOKEN = 3
TEMPERATURE = 0.7
RETRIED = {408, 429, 500, 502, 503, 504}
KEY_REFUSED = {401, 403}

LANGUAGES = {
    "en": "English",
    "nb": "Norwegian bokmål",
    "es": "Spanish, with tú",
}
TONES = {
    "supportive": "supportive: warm, without any pressure or haste",
    "urgent": "urgent: calm and clear; say in the observation how many days are left",
    "resource_focused": "resource-focused: name the topics to go back to, if any",
}
CHANNELS = {"email": "email", "sms": "sms", "in_app": "a message inside the platform"}
ROOM = {
    "email": "All parts together at most 150 words.",
    "sms": "All parts together at most 200 characters, with a single next step.",
    "in_app": "All parts together at most 80 words.",
}
NAMED = "Greet with the placeholder {first_name}, exactly so, once and only here."
NAMELESS = "Greet without any name and without a placeholder."


class GeminiMissing(UserError):
    """The drafter cannot work: no key, or the client is not installed."""


class NoAnswer(Exception):
    """This model gives no usable answer to this request; `reason` names the kind."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NoModel(Exception):
    """No model will answer any more in this run: key refused, or budget spent."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Answer(pydantic.BaseModel):
    """What the model is asked for."""

    subject: str
    opening: str
    observation: str
    next_steps: list[str] = pydantic.Field(min_length=1, max_length=MOST_STEPS)
    closing: str


# ---------------------------------------------------------------- what leaves


def outgoing(order: Order, key: bytes) -> dict[str, Any]:
    """All that a request says about a student: the allow-list.

    No name, contact, id, score or attribute; the due day itself stays here too.
    """
    context = order.context
    return {
        "student": pseudonym(key, order.contact.student_id),
        "course": context.course,
        "assessment": context.assessment,
        "days_left": context.days_left,
        "reasons": list(context.reasons),
        "weak_topics": list(context.topics),
        "engagement_zone": context.zone,
    }


def holds_personal_data(data: dict[str, Any], order: Order) -> bool:
    """Whether somebody typed this student's name or address into a title or topic."""
    text = json.dumps(data, ensure_ascii=False).casefold()
    digits = re.sub(r"\D", "", order.contact.phone or "")
    name = (order.contact.first_name or "").strip().casefold()
    email = (order.contact.email or "").strip().casefold()
    return (
        bool(name and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text))
        or bool(email and email in text)
        or bool(len(digits) > 5 and digits in re.sub(r"[ ()./+-]", "", text))
    )


# ---------------------------------------------------------------- the drafter


@dataclass
class Report:
    """What a run used and why templates stood in."""

    estimate: Usage = field(default_factory=Usage)
    kept: int = 0
    drafted: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass
class _Model:
    """One model of the chain during a run."""

    name: str
    limit: RateLimit
    failures: int = 0
    gone: bool = False

    def failed(self, reason: str) -> None:
        self.failures += 1
        self.gone = self.gone or self.failures >= MOST_FAILURES_IN_A_ROW
        raise NoAnswer(reason)


class GeminiDrafter:
    """Asks Gemini for every draft and falls back to the templates.

    Parameters
    ----------
    run
        Names the run, such as campaign and day; its pseudonyms share a secret.

    Raises
    ------
    GeminiMissing
        No GOOGLE_API_KEY, or google-genai is not installed.
    """

    name = "gemini"

    def __init__(self, settings: Settings, ledger: Ledger, run: str) -> None:
        if settings.google_api_key is None:
            raise GeminiMissing(
                "--drafter gemini needs GOOGLE_API_KEY. Set it in the environment or "
                "in .env, or draft with --drafter template, which needs no key."
            )
        _require_client()
        self._settings, self._ledger, self._run = settings, ledger, run
        self._prompts = {n: load_prompt(n) for n in ("system", "draft", "revise")}
        self._template = TemplateDrafter()
        prices = read_prices(settings.gemini_prices or PRICES)
        self._thinking = {name: row.thinking_budget for name, row in prices.items()}
        self.budget = Budget(
            settings.gemini_max_requests,
            settings.gemini_max_tokens,
            settings.gemini_max_cost,
            prices,
        )
        unknown = [model for model in settings.gemini_models if model not in prices]
        if settings.gemini_max_cost is not None and unknown:
            raise GeminiMissing(
                f"GEMINI_MAX_COST cannot be kept: no price for {', '.join(unknown)}. "
                "Add it to the file that GEMINI_PRICES names."
            )
        self.report = Report()

    @property
    def version(self) -> str:
        """The versions of the prompts, each with the hash of its file."""
        return " ".join(f"{n}:{p.version}" for n, p in self._prompts.items())

    def estimate(self, orders: Sequence[Order]) -> Usage:
        """What one answer for each draft will about use; kept answers cost nothing."""
        key = self._ledger.pseudonym_key(self._run)
        total, model = Usage(), self._settings.gemini_models[0]
        self.report.kept = 0
        for order in orders:
            system, prompt = self._first_prompt(order, outgoing(order, key))
            if self._ledger.find(self._request_id(model, system, prompt)):
                self.report.kept += 1
            else:
                tokens = _tokens(system + prompt)
                used = self.budget.price(model, tokens, USUAL_OUTPUT_TOKENS)
                total = total.plus(used)
        self.report.estimate = total
        return total

    def write_all(
        self, orders: Sequence[Order], judge: Judge, done: Callable[[int], None]
    ) -> list[Written]:
        """Write every message, many at once; one of a student after the other."""
        return asyncio.run(self._write_all(orders, judge, done))

    async def _write_all(
        self, orders: Sequence[Order], judge: Judge, done: Callable[[int], None]
    ) -> list[Written]:
        settings = self._settings
        # The limits hold asyncio's locks, and so belong to this loop.
        self._models = [
            _Model(
                name,
                RateLimit(
                    settings.gemini_requests_per_minute,
                    settings.gemini_tokens_per_minute,
                ),
            )
            for name in settings.gemini_models
        ]
        self._key = self._ledger.pseudonym_key(self._run)
        self._stopped: str | None = None
        places: dict[str, list[int]] = defaultdict(list)
        for place, order in enumerate(orders):
            places[order.contact.student_id].append(place)
        written: dict[int, Written] = {}
        room = asyncio.Semaphore(settings.gemini_concurrency)

        async def write_student(mine: list[int]) -> None:
            async with room:
                others: list[str] = []
                for place in mine:
                    text = await self._write(orders[place], others, judge)
                    others.append(text.draft.body)
                    written[place] = text
                    done(len(written))

        async with _open_client(settings) as self._client, asyncio.TaskGroup() as tasks:
            for mine in places.values():
                tasks.create_task(write_student(mine))
        return [written[place] for place in range(len(orders))]

    async def _write(self, order: Order, others: list[str], judge: Judge) -> Written:
        data = outgoing(order, self._key)
        reason = "personal data in a title" if holds_personal_data(data, order) else ""
        for model in self._models if not reason else []:
            try:
                written = await self._write_with(model, order, data, others, judge)
            except NoAnswer as error:
                last = error.reason
                continue
            except NoModel as error:
                last = error.reason
                break
            if written:
                self.report.drafted[model.name] += 1
                return written
            last = "did not pass the checks"
            break
        self.report.drafted[self._template.name] += 1
        self.report.reasons[reason or last] += 1
        draft = self._template.write(order.context)
        # Templates resemble each other; the last resort is not refused for that.
        found = tuple(judge(order, draft, ()))
        return Written(draft, self._template.name, self._template.version, found)

    async def _write_with(
        self,
        model: _Model,
        order: Order,
        data: dict[str, Any],
        others: list[str],
        judge: Judge,
    ) -> Written | None:
        """Ask, check, and ask again with the reasons; None if it never passes."""
        system, prompt = self._first_prompt(order, data)
        for attempt in range(1 + MOST_REVISIONS):
            answer = await self._answer(model, system, prompt, order, attempt)
            draft = _to_draft(answer, order.context)
            found = judge(order, draft, (*order.others, *others))
            if not found:
                return Written(draft, model.name, self.version, ())
            prompt = self._prompts["revise"].fill(
                data=_json(data), former=_quoted(answer), reasons=_list(found)
            )
        return None

    def _first_prompt(self, order: Order, data: dict[str, Any]) -> tuple[str, str]:
        context = order.context
        system = self._prompts["system"].fill(
            language=LANGUAGES[context.locale],
            channel=CHANNELS[context.channel],
            tone=TONES[context.tone],
            room=ROOM[context.channel],
            greeting=NAMED if context.has_name else NAMELESS,
        )
        return system, self._prompts["draft"].fill(data=_json(data))

    def _request_id(
        self, model: str, system: str, prompt: str, attempt: int = 0
    ) -> str:
        # The attempt, because a model may give the same bad answer twice.
        parts = [model, self.version, system, prompt, attempt]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    # ------------------------------------------------------------ one answer

    async def _answer(
        self, model: _Model, system: str, prompt: str, order: Order, attempt: int
    ) -> Answer:
        """Return the kept answer to this prompt, or ask and keep it."""
        request_id = self._request_id(model.name, system, prompt, attempt)
        row = self._ledger.find(request_id)
        if row is None:
            response, body = await self._ask(model, system, prompt)
            row = self._row(request_id, model.name, order, response, body)
            self._ledger.keep(row)
        if row["outcome"] != "answered":
            raise NoAnswer(str(row["outcome"]))
        return Answer.model_validate_json(row["answer"])

    def _row(
        self, request_id: str, model: str, order: Order, response: Any, body: bytes
    ) -> dict[str, Any]:
        outcome, answer = _read(response)
        tokens_in, tokens_out = _used(response)
        keep = self._settings.gemini_keep_requests
        return {
            "request_id": request_id,
            "message_id": order.message_id,
            "model": model,
            "prompt_version": self.version,
            "body_sha256": hashlib.sha256(body).hexdigest(),
            "body": body.decode() if keep else None,
            "outcome": outcome,
            "answer": answer,
            "input_tokens": tokens_in,
            "output_tokens": tokens_out,
        }

    async def _ask(self, model: _Model, system: str, prompt: str) -> tuple[Any, bytes]:
        """Ask until there is an answer, for as long as it is worth it."""
        tokens = _tokens(system + prompt)
        for attempt in range(1, MOST_TRIES + 1):
            if self._stopped:
                raise NoModel(self._stopped)
            if model.gone:
                raise NoAnswer(f"{model.name} is not available")
            await model.limit.start(tokens)
            try:
                answer = await self._ask_once(model.name, system, prompt, tokens)
            except BudgetSpent:
                self._stopped = "the budget is spent"
                raise NoModel(self._stopped) from None
            except self._client.api_error as error:
                wait = self._wait_after(error, model)
            except (self._client.network_error, OSError, TimeoutError):
                wait = None
            else:
                model.failures = 0
                return answer
            if attempt < MOST_TRIES:
                await asyncio.sleep(_backoff(attempt) if wait is None else wait)
        model.failed("no answer after retries")
        raise AssertionError  # failed() always raises

    def _wait_after(self, error: Any, model: _Model) -> float | None:
        """Seconds to wait before the next try; None where the server names none."""
        if error.code in KEY_REFUSED or "API_KEY_INVALID" in str(error.details):
            self._stopped = f"Gemini refused the key ({error.code})"
            raise NoModel(self._stopped)
        if error.code == 404:
            model.gone = True
            raise NoAnswer(f"{model.name} is not available")
        if error.code not in RETRIED:
            model.failed(f"HTTP {error.code}")
        wait = server_delay(error)
        if wait is not None and wait > LONGEST_WAIT:
            model.gone = True
            raise NoAnswer(f"{model.name} is not available")
        if wait is not None:
            model.limit.pause(wait)
        return wait

    async def _ask_once(
        self, model: str, system: str, prompt: str, tokens: int
    ) -> tuple[Any, bytes]:
        most = self.budget.price(model, tokens, MOST_OUTPUT_TOKENS)
        self.budget.reserve(most)
        # An answer that never came may have been paid for: its prompt counts.
        used = self.budget.price(model, tokens, 0)
        try:
            async with asyncio.timeout(self._settings.gemini_timeout_seconds):
                response, body = await self._client.generate(
                    model, system, prompt, self._thinking.get(model)
                )
            used = self.budget.price(model, *_used(response))
            return response, body
        except self._client.api_error:
            used = Usage(requests=1)
            raise
        finally:
            self.budget.settle(most, used)


# ---------------------------------------------------------------- answers


def _read(response: Any) -> tuple[str, str | None]:
    """The outcome of a response, and its JSON where that is usable."""
    if response.prompt_feedback and response.prompt_feedback.block_reason:
        return "refused by the model", None
    candidate = (response.candidates or [None])[0]
    finish = getattr(candidate and candidate.finish_reason, "name", "")
    if finish == "MAX_TOKENS":
        return "answer cut off", None
    if finish not in ("STOP", ""):
        return "refused by the model", None
    parts = (candidate.content.parts if candidate and candidate.content else None) or []
    text = "".join(part.text or "" for part in parts if not part.thought)
    try:
        return "answered", Answer.model_validate_json(text).model_dump_json()
    except pydantic.ValidationError:
        return "answer not readable", None


def _used(response: Any) -> tuple[int, int]:
    """Tokens that were billed: those of the prompt, and those that were made."""
    usage = response.usage_metadata
    if usage is None:
        return 0, 0
    made = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
    return usage.prompt_token_count or 0, made


def _to_draft(answer: Answer, context: Context) -> Draft:
    sms = context.channel == "sms"
    return compose(
        context,
        subject=None if sms else answer.subject,
        opening=answer.opening,
        observation=answer.observation,
        next_steps=answer.next_steps,
        closing=answer.closing,
    )


def _json(data: dict[str, Any]) -> str:
    # No bracket of the data can close what delimits them.
    text = json.dumps(data, ensure_ascii=False, indent=1)
    return text.replace("<", "").replace(">", "")


def _quoted(answer: Answer) -> str:
    return _json(answer.model_dump())


def _list(found: Sequence["Problem"]) -> str:
    return "\n".join(f"- {item.check}: {item.reason}" for item in found)


def _tokens(text: str) -> int:
    return len(text.encode()) // BYTES_PER_TOKEN + 1


# ---------------------------------------------------------------- waiting


def server_delay(error: Any) -> float | None:
    """Seconds that the server asks to wait: Retry-After or google.rpc.RetryInfo.

    Where it sends both, the longer counts.
    """
    found = [_retry_after(error.response), _retry_info(error.details)]
    known = [seconds for seconds in found if seconds is not None]
    return max(known) if known else None


def _retry_after(response: Any) -> float | None:
    value = response.headers.get("retry-after") if response is not None else None
    if not value:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max((moment - datetime.now(UTC)).total_seconds(), 0.0)


def _retry_info(details: Any) -> float | None:
    error = details.get("error", details) if isinstance(details, dict) else {}
    rows = error.get("details") if isinstance(error, dict) else None
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and str(row.get("@type", "")).endswith("RetryInfo"):
            delay = re.fullmatch(r"(\d+(?:\.\d+)?)s", str(row.get("retryDelay", "")))
            return float(delay[1]) if delay else None
    return None


def _backoff(attempt: int) -> float:
    """Seconds before the next try: doubling, with jitter so that not all come back."""
    return FIRST_BACKOFF * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)


# ---------------------------------------------------------------- the client

_sent: ContextVar[list[bytes]] = ContextVar("sent")


async def _remember(request: Any) -> None:
    """Keep the exact body that goes out, for whoever is sending it."""
    _sent.get([]).append(request.content)


class _Client:
    """The google-genai client, told to leave waiting and retrying to us."""

    def __init__(self, settings: Settings) -> None:
        from google import genai
        from google.genai import errors, types

        httpx = _require_client()
        assert settings.google_api_key is not None
        seconds, most = settings.gemini_timeout_seconds, settings.gemini_concurrency
        self._types = types
        self._http = httpx.AsyncClient(
            timeout=seconds,
            limits=httpx.Limits(max_connections=most, max_keepalive_connections=most),
            event_hooks={"request": [_remember]},
        )
        self._client = genai.Client(
            vertexai=False,
            api_key=settings.google_api_key.get_secret_value(),
            http_options=types.HttpOptions(
                base_url=settings.google_gemini_base_url or None,
                timeout=int(seconds * 1000),
                httpx_async_client=self._http,
            ),
        )
        self.api_error = errors.APIError
        self.network_error = httpx.HTTPError

    async def generate(
        self, model: str, system: str, prompt: str, thinking: int | None
    ) -> tuple[Any, bytes]:
        types = self._types
        sent: list[bytes] = []
        _sent.set(sent)
        response = await self._client.aio.models.generate_content(
            model=model,
            contents=prompt,
            config=types.GenerateContentConfig(
                system_instruction=system,
                response_mime_type="application/json",
                response_schema=Answer,
                temperature=TEMPERATURE,
                max_output_tokens=MOST_OUTPUT_TOKENS,
                thinking_config=None
                if thinking is None
                else types.ThinkingConfig(thinking_budget=thinking),
            ),
        )
        return response, sent[-1]

    async def __aenter__(self) -> "_Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()


def _open_client(settings: Settings) -> _Client:
    return _Client(settings)


def _require_client() -> Any:
    """The HTTP library that the installed client is built on."""
    try:
        import google.genai  # noqa: F401

        try:
            import httpx2 as httpx
        except ImportError:
            import httpx  # type: ignore[no-redef]
    except ImportError:
        raise GeminiMissing(
            "--drafter gemini needs the package google-genai: "
            "pip install 'student-success[gemini]'."
        ) from None
    return httpx
