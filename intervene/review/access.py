"""Who may use the page: sign-in by token, sessions, where requests come from.

Everything is kept in memory: a restart signs everybody out.
"""

import hashlib
import hmac
import secrets
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

SESSION_SECONDS = 8 * 3600
# So many wrong tokens from one address within so long, and it has to wait.
MOST_WRONG = 10
WRONG_SECONDS = 300.0
MOST_SESSIONS = 1_000
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def parse_tokens(text: str) -> dict[str, str]:
    """Actor by token, from `anna:token,ben:token` as the settings have checked it."""
    pairs = (item.strip().partition(":") for item in text.split(",") if item.strip())
    return {token: actor for actor, _, token in pairs}


@dataclass(frozen=True)
class Notice:
    """What came of an action, told on the next page."""

    text: str
    problems: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()


@dataclass
class Session:
    """One browser; `actor` is None until it has signed in."""

    key: str
    csrf: str
    expires: float
    actor: str | None = None
    notice: Notice | None = field(default=None, repr=False)


class Gate:
    """Tokens, sessions and the addresses that the page answers to.

    Parameters
    ----------
    tokens
        Actor by token.
    hosts
        Names, beside those of this machine itself, that a request may ask for.
    url
        The address that browsers see where a proxy stands before the page.
    clock
        Seconds that only grow.
    """

    def __init__(
        self,
        tokens: dict[str, str],
        hosts: tuple[str, ...] = (),
        url: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._actors = {_digest(token): actor for token, actor in tokens.items()}
        self._url = url
        names = (*LOOPBACK, *hosts, urlsplit(url).hostname or "")
        self._hosts = {name.lower() for name in names if name}
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._wrong: dict[str, deque[float]] = defaultdict(deque)
        self._lock = threading.Lock()

    @property
    def over_tls(self) -> bool:
        """Whether browsers reach the page over TLS, so that cookies may demand it."""
        return self._url.startswith("https://")

    # ---------------------------------------------------------------- requests

    def knows_host(self, host: str) -> bool:
        """Whether a `Host` header names this page: any other name is an attack.

        A page elsewhere can make its own name point at this machine (DNS
        rebinding); what it cannot do is send another `Host`.
        """
        try:
            return urlsplit(f"//{host}").hostname in self._hosts
        except ValueError:
            return False

    def is_own_origin(self, origin: str | None, host: str) -> bool:
        """Whether an `Origin` header is that of this page."""
        return origin in {f"http://{host}", self._url} - {""}

    # ---------------------------------------------------------------- sessions

    def session(self, key: str | None) -> Session | None:
        """The session of a cookie, unless it has expired or was ended."""
        with self._lock:
            found = self._sessions.get(key or "")
            if found and found.expires <= self._clock():
                del self._sessions[found.key]
                return None
            return found

    def begin(self, actor: str | None = None) -> Session:
        """A new session; a key from before a sign-in is never the one after it."""
        made = Session(
            key=secrets.token_urlsafe(32),
            csrf=secrets.token_urlsafe(32),
            expires=self._clock() + SESSION_SECONDS,
            actor=actor,
        )
        with self._lock:
            if len(self._sessions) >= MOST_SESSIONS:
                # Those who never signed in go first, then the oldest.
                oldest = min(
                    self._sessions.values(),
                    key=lambda session: (session.actor is not None, session.expires),
                )
                del self._sessions[oldest.key]
            self._sessions[made.key] = made
        return made

    def end(self, session: Session) -> None:
        """Sign out: the cookie is worth nothing any more."""
        with self._lock:
            self._sessions.pop(session.key, None)

    # ---------------------------------------------------------------- tokens

    def sign_in(self, token: str, address: str) -> str | None:
        """Whose token this is; None for nobody's. Compared in constant time."""
        given, actor = _digest(token.strip()), None
        for known, owner in self._actors.items():
            if hmac.compare_digest(known, given):
                actor = owner
        if actor is None:
            with self._lock:
                self._wrong[address].append(self._clock())
        return actor

    def seconds_to_wait(self, address: str) -> int:
        """Seconds that an address with too many wrong tokens has to wait, else 0."""
        now = self._clock()
        with self._lock:
            wrong = self._wrong[address]
            while wrong and wrong[0] <= now - WRONG_SECONDS:
                wrong.popleft()
            if not wrong:
                del self._wrong[address]
            if len(wrong) < MOST_WRONG:
                return 0
            return int(wrong[0] + WRONG_SECONDS - now) + 1


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
