"""The score that was last published, so that every verdict can show what the judge is
known to catch."""

import json
import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any

from jaxnn.experiment.files import artifacts

FILE = pathlib.Path(__file__).with_suffix(".json")


def read() -> dict[str, Any] | None:
    """As `table.summary` has it; None before the first."""
    return json.loads(FILE.read_text()) if FILE.exists() else None


def write(score: Mapping[str, Any]) -> None:
    """Publishes a score."""
    artifacts.write_text(FILE, json.dumps(score, indent=1) + "\n")


def commit() -> str:
    """The commit of this code, with a "+" if it was changed since; "unknown" outside a
    checkout."""
    head, changes = (
        _git("rev-parse", "--short", "HEAD"),
        _git("status", "--porcelain", "--untracked-files=no"),
    )
    return (head or "unknown") + ("+" if changes else "")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=FILE.parent, capture_output=True, text=True
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
