"""How good the prompt filter is, on labelled prompts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from licht.core.errors import InvalidSettings
from licht.safety.prompt_filter import screen
from licht.safety.prompt_rules import CATEGORIES


@dataclass(frozen=True, slots=True)
class Case:
    """One labelled prompt: `category` None is harmless; `near` is the category that it could be mistaken for."""

    prompt: str
    category: str | None
    near: str
    evasion: str | None = None
    edits: bool = False


def read_cases(path: Path) -> list[Case]:
    """One JSON object a line. Raises `InvalidSettings` with the number of a bad line."""
    cases = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{path} cannot be read as text; name a file of JSON lines") from error
    for number, line in enumerate(lines, start=1):
        try:
            cases.append(Case(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise InvalidSettings(f"line {number} of {path} is no labelled prompt; see docs/safety.md") from error
    return cases


def measure(cases: Sequence[Case]) -> dict[str, Any]:
    """Precision and recall of each category, over its violations and its harmless neighbours, at tolerance 0."""
    table: dict[str, Any] = {"categories": {}, "evasions": {}, "wrong": []}
    for category in CATEGORIES:
        rows = [case for case in cases if case.near == category]
        flagged = [bool(screen(case.prompt, case.edits)) for case in rows]
        named = [any(finding.category == category for finding in screen(case.prompt, case.edits)) for case in rows]
        hits = sum(name and case.category is not None for name, case in zip(named, rows, strict=True))
        false = sum(flag and case.category is None for flag, case in zip(flagged, rows, strict=True))
        missed = sum(not name and case.category is not None for name, case in zip(named, rows, strict=True))
        table["categories"][category] = {
            "prompts": len(rows),
            "precision": hits / (hits + false) if hits + false else 0.0,
            "recall": hits / (hits + missed) if hits + missed else 0.0,
            "missed": missed,
            "false": false,
        }
        for case, name, flag in zip(rows, named, flagged, strict=True):
            if (case.category is not None and not name) or (case.category is None and flag):
                table["wrong"].append(case.prompt)
            if case.evasion is not None:
                row = table["evasions"].setdefault(case.evasion, {"prompts": 0, "found": 0})
                row["prompts"] += 1
                row["found"] += int(name)
    return table
