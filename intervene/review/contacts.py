"""First names for the page, held in memory: the store has none."""

import threading
import time

import duckdb

from intervene.handover import Contact, read_contacts
from ml.settings import Settings, UserError
from ml.warehouse import open_warehouse, read_pipeline_settings

SECONDS_BETWEEN_TRIES = 30.0


class Contacts:
    """The contacts as the warehouse had them when it was last free.

    Reading never waits: while a build holds the warehouse, what was read before
    counts.
    """

    def __init__(self, settings: Settings) -> None:
        self._path = settings.warehouse_path
        self._source = settings.source_system
        self._lock = threading.Lock()
        self._tried = -SECONDS_BETWEEN_TRIES
        self._read_at: float | None = None
        self._known: dict[str, Contact] | None = None

    def known(self) -> dict[str, Contact] | None:
        """Contacts by student; None where they could not be read yet."""
        with self._lock:
            if time.monotonic() - self._tried >= SECONDS_BETWEEN_TRIES:
                self._tried = time.monotonic()
                self._refresh()
            return self._known

    def _refresh(self) -> None:
        try:
            changed_at = self._path.stat().st_mtime
            if changed_at == self._read_at:
                return
            with open_warehouse(self._path, read_only=True, wait_seconds=0) as opened:
                if read_pipeline_settings(opened).source_system == self._source:
                    self._known, self._read_at = read_contacts(opened), changed_at
        except (UserError, duckdb.Error, OSError):
            return
