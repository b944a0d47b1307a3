from pathlib import Path

from licht.plan.document import MEMORY_GB, document


def test_the_page_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "plans.md"
    assert page.read_text(encoding="utf-8") == document(), "run `python -m licht.plan.document > docs/plans.md`"


def test_every_model_has_a_plan_for_each_amount() -> None:
    rows = [line for line in document().splitlines() if line.startswith("| dev ")]
    assert len(rows) == 3
    assert all(row.count("|") == len(MEMORY_GB) + 2 for row in rows)
