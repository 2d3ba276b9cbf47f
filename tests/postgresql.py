"""A real PostgreSQL server for the tests, from the machine's own programs."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def find_postgresql() -> Path | None:
    """The folder of the server's programs, on the path or where Debian puts it."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return folders[0] if folders else None


@contextmanager
def postgresql(programs: Path) -> Iterator[str]:
    """A server of its own; yields the URL of its maintenance database."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    # The server refuses to run as root.
    other = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if other:
        shutil.chown(folder, "postgres")
    data, port = folder / "data", free_port()
    options = f"-p {port} -k {folder} -h 127.0.0.1 -c fsync=off"

    def call(program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*other, programs / program, "-D", data, *arguments],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    try:
        call("initdb", "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
        call("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
