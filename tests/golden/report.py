"""`python -m tests.golden.report`: how far Licht is from the reference, as Markdown tables; `--write` keeps them."""

import argparse
import json
import math
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from licht.evaluation.golden import versions
from licht.evaluation.measured import ONE_LEVEL, Measured
from tests.golden.sections import HAS_MISTRAL_COMMON, SECTIONS, Models

HERE = Path(__file__).parent
RECORD = HERE / "measured.json"
DOCUMENT = HERE.parents[1] / "docs" / "golden.md"
INTRODUCTION = HERE / "introduction.md"
DRAWING_COLUMNS = 8


def measure(names: Sequence[str]) -> dict[str, list[Measured]]:
    """Measure sections, saying on stderr which one is at work."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        built = Models(Path(folder))
        for name, section in SECTIONS.items():
            if name not in names or (name == "vocabulary" and not HAS_MISTRAL_COMMON):
                continue
            started = time.perf_counter()
            found[name] = list(section.measure(built))
            print(f"{name}: {len(found[name])} rows, {time.perf_counter() - started:.1f} s", file=sys.stderr)
    return found


def read_versions() -> dict[str, str]:
    """What the rows on record were measured with."""
    return dict(json.loads(RECORD.read_text("utf-8"))["versions"])


def read_record() -> dict[str, list[Measured]]:
    """The rows on record, by section."""
    sections = json.loads(RECORD.read_text("utf-8"))["sections"]
    return {name: [Measured(*row) for row in rows] for name, rows in sections.items()}


def write_record(found: Mapping[str, Sequence[Measured]]) -> None:
    """Keep the measured rows and what they were measured with."""
    sections = {
        name: [[row.variant, row.case, row.component, float(f"{row.error:.3g}"), row.tolerance] for row in rows]
        for name, rows in found.items()
    }
    lines = ['{\n  "versions": ' + json.dumps(versions_used()) + ',\n  "sections": {\n']
    blocks = []
    for name, rows in sections.items():
        inner = ",\n".join(f"      {json.dumps(row)}" for row in rows)
        blocks.append(f"    {json.dumps(name)}: [\n{inner}\n    ]")
    RECORD.write_text("".join(lines) + ",\n".join(blocks) + "\n  }\n}\n", "utf-8")


def versions_used() -> dict[str, str]:
    """What was compared with what."""
    return {"python": platform.python_version(), "torch": torch.__version__.partition("+")[0], **versions()}


def near(measured: Measured, recorded: Measured) -> bool:
    """Whether a difference is about what it was.

    Processors add up in different orders, so that rounding errors may grow to a third of what is allowed; beyond that,
    they may at most triple. Pixels are rounded, so that any of them may be one level off.
    """
    if measured.tolerance == ONE_LEVEL:
        return measured.within
    return measured.error <= max(3 * recorded.error, 0.3 * measured.tolerance)


def tables(found: Mapping[str, Sequence[Measured]]) -> str:
    """All rows as Markdown: a chapter per title, a table per set of components."""
    chapters: dict[str, list[Measured]] = {}
    for name, rows in found.items():
        chapters.setdefault(SECTIONS[name].title, []).extend(rows)
    parts = []
    for title, rows in chapters.items():
        parts.append(f"## {title}")
        parts += [_table(group) for group in _groups(rows)]
    return "\n\n".join(parts) + "\n"


def _groups(rows: Iterable[Measured]) -> list[list[Measured]]:
    """Rows of cases that were asked for the same things, in order of appearance."""
    by_case: dict[tuple[str, str], list[Measured]] = {}
    for row in rows:
        by_case.setdefault((row.variant, row.case), []).append(row)
    grouped: dict[str, list[Measured]] = {}
    for case_rows in by_case.values():
        grouped.setdefault(_kind_of(case_rows), []).extend(case_rows)
    return list(grouped.values())


def _kind_of(case_rows: Sequence[Measured]) -> str:
    components = [row.component for row in case_rows]
    for mark in ("velocity", "token ids", "text layers", "mean"):
        if mark in components:
            return f"{mark}, {any('block' in component for component in components)}"
    return components[0]


def _table(rows: Sequence[Measured]) -> str:
    """Cases down and components across, or the other way round where there are many components."""
    components = list(dict.fromkeys(row.component for row in rows))
    cases = list(dict.fromkeys((row.variant, row.case) for row in rows))
    cells = {(row.variant, row.case, row.component): _error(row) for row in rows}
    allowed = {row.component: row.tolerance for row in rows}
    if len(components) > DRAWING_COLUMNS:
        variants = [variant for variant, _ in cases]
        lines = ["| component | allowed | " + " | ".join(variants) + " |", "| --- " * (len(cases) + 2) + "|"]
        for component in components:
            row = [cells.get((*case, component), "-") for case in cases]
            lines.append(f"| {component} | {_number(allowed[component])} | " + " | ".join(row) + " |")
        return "\n".join(lines)
    lines = ["| variant | case | " + " | ".join(components) + " |", "| --- " * (len(components) + 2) + "|"]
    lines.append("| allowed | | " + " | ".join(_number(allowed[component]) for component in components) + " |")
    for variant, case in cases:
        row = [cells.get((variant, case, component), "-") for component in components]
        lines.append(f"| {variant} | {case} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def _error(row: Measured) -> str:
    return _number(row.error) if row.within else f"**{_number(row.error)}**"


def _number(value: float) -> str:
    if value in (0.0, math.inf):
        return f"{value:.0f}"
    if math.isclose(value, ONE_LEVEL):
        return "1/255"
    return f"{value:.1e}"


def document(found: Mapping[str, Sequence[Measured]], used: Mapping[str, str]) -> str:
    """The page for people: an introduction, and the tables."""
    libraries = ", ".join(f"{name} {version}" for name, version in used.items())
    introduction = INTRODUCTION.read_text("utf-8").replace("{versions}", libraries)
    return introduction.rstrip("\n") + "\n\n" + tables(found)


def main() -> int:
    """Measure, print, and write if asked to. 1 if a difference is larger than allowed."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden.report", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write docs/{DOCUMENT.name} and the record of the tests")
    parser.add_argument("--section", action="append", choices=SECTIONS, help="measure this one; others stay on record")
    given = parser.parse_args()
    write: bool = given.write
    found = measure(given.section or list(SECTIONS))
    print(tables(found))
    outside = [row for rows in found.values() for row in rows if not row.within]
    print(f"{sum(map(len, found.values()))} differences measured, {len(outside)} larger than allowed")
    if given.section:
        kept = {**read_record(), **found}
        found = {name: kept[name] for name in SECTIONS if name in kept}
    if write and found.keys() != SECTIONS.keys():
        missing = ", ".join(SECTIONS.keys() - found.keys())
        print(f"not written: {missing} not measured (the vocabulary needs Python 3.13 or older)", file=sys.stderr)
        return 1
    if write:
        write_record(found)
        DOCUMENT.parent.mkdir(exist_ok=True)
        DOCUMENT.write_text(document(read_record(), read_versions()), "utf-8")
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())
