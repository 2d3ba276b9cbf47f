"""Run a command in a process of its own and measure what it took.

Whoever starts the measured processes has to stay small: on Linux a process's peak
begins with the memory of the one that started it. So nothing here, nor in
`__main__.py`, imports pandas or DuckDB.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ml.settings import PROJECT_ROOT

WAIT_SECONDS = 0.02
SAMPLE_SECONDS = 0.25
PAGE = os.sysconf("SC_PAGE_SIZE")


class CommandFailed(Exception):
    """A measured command ended with an error; the message has its last words."""


@dataclass(frozen=True)
class Limits:
    """Beyond these a process is ended, and counts as having given up."""

    seconds: float | None = None
    memory: int | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Measured:
    """What one process and its children took.

    `peak` is the most memory (bytes) that they held together, `spilled` the most that
    lay in the watched folder. `gave_up` says which limit ended it.
    """

    seconds: float
    cpu_seconds: float
    peak: int
    spilled: int
    gave_up: str | None
    output: str

    def as_json(self) -> dict[str, object]:
        """The figures, without the output."""
        figures: dict[str, object] = {
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 3),
            "peak_bytes": self.peak,
        }
        if self.spilled:
            figures["spilled_bytes"] = self.spilled
        if self.gave_up:
            figures["gave_up"] = self.gave_up
        return figures


def measure(
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    log: Path,
    limits: Limits = NO_LIMITS,
    spill: Path | None = None,
) -> Measured:
    """Run a command from the project's folder, alone, and wait for it.

    Parameters
    ----------
    log
        Gets the standard error, and on failure its path is told.
    spill
        A folder whose size is watched.

    Raises
    ------
    CommandFailed
        It ended with an error other than a limit's.
    """
    with tempfile.TemporaryFile() as output, log.open("wb") as errors:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=PROJECT_ROOT,
            env=dict(environment),
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        watched = _watch(process, limits, spill)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if process.returncode and not watched.gave_up:
        tail = (text + log.read_text(errors="replace"))[-4000:]
        words = " ".join(map(str, command))
        raise CommandFailed(f"`{words}` ended with {process.returncode}:\n{tail}")
    return Measured(**(vars(watched) | {"output": text}))


def _watch(
    process: subprocess.Popen[bytes], limits: Limits, spill: Path | None
) -> Measured:
    began = sampled = time.perf_counter()
    peak = spilled = 0
    gave_up = None
    while True:
        done, status, used = os.wait4(process.pid, os.WNOHANG)
        if done:
            break
        time.sleep(WAIT_SECONDS)
        if time.perf_counter() - sampled < SAMPLE_SECONDS:
            continue
        sampled = time.perf_counter()
        peak = max(peak, group_memory(process.pid))
        spilled = max(spilled, folder_size(spill) if spill else 0)
        seconds = sampled - began
        gave_up = gave_up or _limit_reached(limits, seconds, peak)
        if gave_up:
            _end(process.pid)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    peak = max(peak, used.ru_maxrss * 1024)
    cpu = used.ru_utime + used.ru_stime
    return Measured(seconds, cpu, peak, spilled, gave_up, "")


def _limit_reached(limits: Limits, seconds: float, peak: int) -> str | None:
    if limits.seconds is not None and seconds > limits.seconds:
        return f"not done after {limits.seconds / 60:.0f} minutes"
    if limits.memory is not None and peak > limits.memory:
        return f"needed more than {limits.memory / 1e9:.0f} GB"
    return None


def _end(leader: int) -> None:
    """End a process that `measure` started, and its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def group_memory(leader: int) -> int:
    """Bytes that a session's processes hold in memory; 0 where it cannot be told."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[3]) == leader:
            total += int(fields[21]) * PAGE
    return total


def folder_size(folder: Path) -> int:
    """Bytes of the files in a folder, at any depth; 0 where there is none."""
    total = 0
    # Files and folders come and go meanwhile; walk() passes over what it cannot open.
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(parent, name).stat().st_size
    return total
