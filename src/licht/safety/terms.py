"""An operator's own words: brands, names and terms that are to be refused, one a line.

A line is `term`, or `category: term`, or `category @ level: term`, where level is the highest tolerance (0 to 5) that
still refuses. Terms are found as whole words in every reading of a prompt that the prompt filter knows.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from licht.core.errors import InvalidSettings
from licht.safety.prompt_filter import Finding, readings

CATEGORY: Final = "operator's list"
LEVEL: Final = 5
_LINE: Final = re.compile(r"(?:(?P<category>[^:@]{1,60}?)\s*(?:@\s*(?P<level>[0-5])\s*)?:\s+)?(?P<term>[^:@]{2,200})")
_LONGEST_LISTED_FAULTS: Final = 5


@dataclass(frozen=True, slots=True)
class Term:
    """One entry, as the prompt filter reads text."""

    words: str
    category: str
    level: int
    source: str


@dataclass(frozen=True, slots=True)
class Terms:
    """All entries of all lists."""

    entries: tuple[Term, ...] = ()

    def screen(self, text: str) -> tuple[Finding, ...]:
        """One finding for each category and level that a text meets."""
        if not self.entries:
            return ()
        padded = [f" {reading} " for reading in readings(text)]
        met = [term for term in self.entries if any(f" {term.words} " in reading for reading in padded)]
        return tuple(dict.fromkeys(Finding(f"term list {term.source}", term.category, term.level) for term in met))


def read_terms(paths: Sequence[Path]) -> Terms:
    """Read every list; `#` begins a comment. Raises `InvalidSettings` with the numbers of bad lines."""
    return Terms(tuple(term for path in paths for term in _read(path)))


def _read(path: Path) -> list[Term]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"term list {path} cannot be read as text; check LICHT_TERM_LISTS") from error
    found, faults = [], []
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = _LINE.fullmatch(text)
        words = next(readings(match["term"]), "") if match else ""
        if match is None or not words:
            faults.append(number)
            continue
        level = int(match["level"]) if match["level"] else LEVEL
        found.append(Term(words, (match["category"] or CATEGORY).strip(), level, path.name))
    if faults:
        named = ", ".join(map(str, faults[:_LONGEST_LISTED_FAULTS])) + (", ..." if len(faults) > 5 else "")
        raise InvalidSettings(f"term list {path} has bad lines ({named}); a line is TERM, or CATEGORY @ LEVEL: TERM")
    return found
