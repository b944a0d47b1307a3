"""Every measured difference is inside its tolerance and near the one on record."""

import pytest

from licht.evaluation.measured import ONE_LEVEL, Measured
from tests.golden import report
from tests.golden.sections import HAS_MISTRAL_COMMON, SECTIONS, Models

# Those of more than about five seconds on one core.
SLOW = ("float32", "bfloat16", "official", "vocabulary", "nano-whole", "nano-base-whole")


def _parameters() -> list[object]:
    marks = {name: [pytest.mark.slow] if name.endswith(SLOW) else [] for name in SECTIONS}
    if not HAS_MISTRAL_COMMON:
        marks["vocabulary"].append(pytest.mark.skip(reason="mistral-common cannot be installed on this Python"))
    return [pytest.param(name, marks=marks[name]) for name in SECTIONS]


@pytest.mark.parametrize("name", _parameters())
def test_differences_are_allowed_and_as_they_were(name: str, built: Models) -> None:
    recorded = report.read_record()[name]
    measured = list(SECTIONS[name].measure(built))

    assert [row for row in measured if not row.within] == []
    assert [_key(row) for row in measured] == [_key(row) for row in recorded], "write the report again"
    changed = [(now, was) for now, was in zip(measured, recorded, strict=True) if not report.near(now, was)]
    assert changed == [], "larger than on record: find out why before the report is written again"


def test_the_record_covers_all_sections_and_nothing_else() -> None:
    recorded = report.read_record()
    assert list(recorded) == list(SECTIONS)
    assert all(row.within for rows in recorded.values() for row in rows)


def test_the_page_shows_the_record() -> None:
    assert report.DOCUMENT.read_text("utf-8") == report.document(report.read_record(), report.read_versions())


@pytest.mark.parametrize(
    ("error", "recorded", "tolerance", "expected"),
    [
        (0.0, 0.0, 0.0, True),
        (1e-9, 0.0, 0.0, False),
        (2e-6, 5e-8, 1e-5, True),
        (6e-6, 1e-6, 1e-5, False),
        (6e-6, 3e-6, 1e-5, True),
        (ONE_LEVEL, 0.0, ONE_LEVEL, True),
        (2 * ONE_LEVEL, ONE_LEVEL, ONE_LEVEL, False),
        (float("nan"), 1e-6, 1e-5, False),
    ],
)
def test_near_allows_rounding_and_no_drift(error: float, recorded: float, tolerance: float, expected: bool) -> None:
    now, was = (Measured("klein", "odd", "velocity", value, tolerance) for value in (error, recorded))
    assert report.near(now, was) is expected


def _key(row: Measured) -> tuple[str, str, str, float]:
    return row.variant, row.case, row.component, row.tolerance
