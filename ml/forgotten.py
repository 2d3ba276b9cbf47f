"""Who asked to be forgotten: keyed hashes of students' ids, in a folder of two files.

`key` is made at first use, readable by its owner alone; `students.csv` has one hash
per line. dbt reads the same files (`dbt_project/macros/forgotten.sql`), so that the
next build leaves the student out of whatever raw files it reads. Nobody without the
key can try ids against the hashes.
"""

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from ml.settings import Settings, UserError

KEY, HASHES, HEADER = "key", "students.csv", "student_hash"
# Columns that hold a student's id; the macro student_columns has the same.
STUDENT_COLUMNS = ("student_id", "id_student")


class ForgottenUnusable(UserError):
    """The folder cannot be read or written, or its key is lost."""


class Forgotten:
    """The folder of hashes; nothing is made before it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def from_settings(cls, settings: Settings) -> "Forgotten":
        """FORGOTTEN_PATH, or the folder `forgotten` beside the warehouse."""
        return cls(settings.forgotten_folder)

    def prepare(self) -> Path:
        """Make key and list where there are none yet; return the folder."""
        with _explained(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._hashes() - {HEADER}:
                _create(self.folder / KEY, secrets.token_hex(32))
                _create(self.folder / HASHES, f"{HEADER}\n")
            self._key()
        return self.folder

    def holds(self, source_system: str, student_id: str) -> bool:
        """Whether this student of this source was forgotten."""
        with _explained(self.folder):
            hashes = self._hashes() - {HEADER}
            return bool(hashes) and self._hash(source_system, student_id) in hashes

    def remember(self, source_system: str, student_id: str) -> bool:
        """Write the hash down, on disk before this returns; False: it was there."""
        self.prepare()
        with _explained(self.folder), (self.folder / HASHES).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            hashed = self._hash(source_system, student_id)
            if hashed in self._hashes():
                return False
            file.write(f"{hashed}\n")
            file.flush()
            os.fsync(file.fileno())
        return True

    def _hash(self, source_system: str, student_id: str) -> str:
        """Nested as in HMAC (Bellare, Canetti, Krawczyk 1996), in words SQL has too."""
        key = self._key()
        inner = sha256(f"{key}{source_system} {student_id.strip(' ')}".encode())
        return sha256(f"{key}{inner.hexdigest()}".encode()).hexdigest()

    def _hashes(self) -> set[str]:
        try:
            return set((self.folder / HASHES).read_text().split())
        except FileNotFoundError:
            return set()

    def _key(self) -> str:
        try:
            key = (self.folder / KEY).read_text()[:64]
        except FileNotFoundError:
            key = ""
        if not re.fullmatch("[0-9a-f]{64}", key):
            raise ForgottenUnusable(
                f"{self.folder / KEY} is missing or damaged, and without it nobody "
                f"knows whom {HASHES} beside it means. Restore it from a backup; "
                "until then nothing is built, drafted or sent."
            )
        return key


def _create(path: Path, text: str) -> None:
    """Write a file that appears whole, unless it is there already."""
    if path.exists():
        return
    draft = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        # Unlike a rename, a link does not replace what another process made.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ForgottenUnusable(
            f"FORGOTTEN_PATH {folder}: {error.strerror}. Make it a folder that this "
            "user can write to; without it nobody knows who was forgotten."
        ) from None
