"""Prompts are files with a version and declared variables.

A variable that is declared and not given, given and not declared, or used and not
declared is an error: a prompt never goes out with a blank.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from ml.settings import UserError

PROMPTS = Path(__file__).parent / "prompts"
VARIABLE = re.compile(r"\{\{(\w+)\}\}")
HEADER = re.compile(
    r"---\nversion: (?P<version>\d+)\nvariables: (?P<names>[\w, ]+)\n---\n(?P<text>.+)",
    re.DOTALL,
)


class PromptError(UserError):
    """A prompt file, or what it is filled with, is not as declared."""


@dataclass(frozen=True)
class Prompt:
    """One prompt file."""

    name: str
    version: str
    variables: frozenset[str]
    text: str

    def fill(self, **values: str) -> str:
        """Put values in; text that is put in is never looked at again."""
        if set(values) != self.variables:
            wrong = ", ".join(sorted(set(values) ^ self.variables))
            raise PromptError(f"Prompt {self.name}: missing or undeclared: {wrong}.")
        return VARIABLE.sub(lambda found: values[found[1]], self.text)


def load_prompt(name: str, folder: Path = PROMPTS) -> Prompt:
    """Read `<name>.md`; its version is `<number>-<hash>`, so no edit goes unseen.

    Raises
    ------
    PromptError
        The file is not there, has no header, or declares other variables than it uses.
    """
    path = folder / f"{name}.md"
    if not path.is_file():
        raise PromptError(f"There is no prompt {path.name} in {folder.name}/.")
    content = path.read_text(encoding="utf-8")
    parts = HEADER.fullmatch(content)
    if parts is None:
        raise PromptError(f"Prompt {name}: needs a header with version and variables.")
    declared = frozenset(part.strip() for part in parts["names"].split(","))
    used = frozenset(VARIABLE.findall(parts["text"]))
    if used != declared:
        wrong = ", ".join(sorted(used ^ declared))
        raise PromptError(f"Prompt {name}: used or declared, but not both: {wrong}.")
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    return Prompt(name, f"{parts['version']}-{digest}", declared, parts["text"].strip())
