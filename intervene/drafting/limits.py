"""What keeps the use of a model within bounds: rate, budget, prices."""

import asyncio
import time
import tomllib
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from ml.settings import UserError

PRICES = Path(__file__).parent / "models.toml"
MINUTE = 60.0
# Prices are per so many tokens.
PRICED_TOKENS = 1_000_000


class PricesError(UserError):
    """The table of prices cannot be read, or lacks a model that a budget needs."""


class BudgetSpent(Exception):
    """A request would go beyond the budget."""


# ---------------------------------------------------------------- prices


@dataclass(frozen=True)
class Price:
    """USD for a million tokens, and how much the model may think (tokens)."""

    input: float
    output: float
    thinking_budget: int | None = None


def read_prices(path: Path) -> dict[str, Price]:
    """Read the table of prices by model."""
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8"))
        return {model: Price(**row) for model, row in rows.items()}
    except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
        raise PricesError(
            f"GEMINI_PRICES: {path.name} is not a readable table of prices: {error}. "
            'Give each model as ["name"] with input and output in USD.'
        ) from error


# ---------------------------------------------------------------- budget


@dataclass
class Usage:
    """What was used; `cost` in USD, None once a model has no known price."""

    requests: int = 0
    tokens: int = 0
    cost: float | None = 0.0

    def plus(self, other: "Usage", sign: int = 1) -> "Usage":
        """Add, or with sign -1 take away."""
        cost = (
            None
            if self.cost is None or other.cost is None
            else self.cost + sign * other.cost
        )
        return Usage(
            self.requests + sign * other.requests,
            self.tokens + sign * other.tokens,
            cost,
        )


@dataclass
class Budget:
    """Most requests, tokens and USD of one run; None is no limit.

    What is under way counts with the most that it can cost, so that requests at the
    same time cannot go beyond the budget together.
    """

    max_requests: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    prices: dict[str, Price] = field(default_factory=dict)
    spent: Usage = field(default_factory=Usage)
    reserved: Usage = field(default_factory=Usage)

    def price(self, model: str, tokens_in: int, tokens_out: int) -> Usage:
        """One request of this size."""
        price, tokens = self.prices.get(model), tokens_in + tokens_out
        if price is None:
            return Usage(1, tokens, None)
        cost = tokens_in * price.input + tokens_out * price.output
        return Usage(1, tokens, cost / PRICED_TOKENS)

    def reserve(self, most: Usage) -> None:
        """Set aside the most that a request may use.

        Raises
        ------
        BudgetSpent
            It does not fit; nothing was set aside.
        """
        total = self.spent.plus(self.reserved).plus(most)
        limits = (
            (total.requests, self.max_requests),
            (total.tokens, self.max_tokens),
            (total.cost, self.max_cost),
        )
        if any(most is not None and (of or 0) > most for of, most in limits):
            raise BudgetSpent
        self.reserved = self.reserved.plus(most)

    def settle(self, reserved: Usage, used: Usage) -> None:
        """Replace what was set aside by what was used."""
        self.reserved = self.reserved.plus(reserved, sign=-1)
        self.spent = self.spent.plus(used)


# ---------------------------------------------------------------- rate


class RateLimit:
    """At most so many requests and tokens in any sixty seconds, and a pause."""

    def __init__(self, requests: int, tokens: int) -> None:
        self._most = (requests, tokens)
        self._recent: deque[tuple[float, int]] = deque()
        self._tokens = 0
        self._paused_until = 0.0
        self._turn = asyncio.Lock()

    def pause(self, seconds: float) -> None:
        """Let no request start for so long; the server asked for it."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    async def start(self, tokens: int) -> None:
        """Wait until a request of this size may start; first come, first served."""
        async with self._turn:
            while (wait := self._wait(tokens)) > 0:
                await asyncio.sleep(wait)
            self._recent.append((time.monotonic(), tokens))
            self._tokens += tokens

    def _wait(self, tokens: int) -> float:
        now = time.monotonic()
        while self._recent and self._recent[0][0] <= now - MINUTE:
            self._tokens -= self._recent.popleft()[1]
        if now < self._paused_until:
            return self._paused_until - now
        requests, most = self._most
        # A request larger than the limit itself starts alone, and is not stuck.
        full = self._recent and self._tokens + tokens > most
        if len(self._recent) >= requests or full:
            return self._recent[0][0] + MINUTE - now + 0.001
        return 0.0
