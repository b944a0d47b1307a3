"""The suites by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from licht.core.errors import InvalidRequest
from licht.evaluation import suite_edits, suite_judge, suite_pictures, suite_words
from licht.evaluation.suites import BOLD, USUAL, Bench, Report


@dataclass(frozen=True, slots=True)
class Suite:
    """What is run, and how many pictures its main rows have unless asked otherwise."""

    run: Callable[[Bench], None]
    usual: int


SUITES: Final[Mapping[str, Suite]] = MappingProxyType(
    {
        "t2i": Suite(suite_pictures.t2i, BOLD),
        "edit": Suite(suite_edits.edit, BOLD),
        "multiref": Suite(suite_edits.multiref, BOLD),
        "text": Suite(suite_words.text, BOLD),
        "steps": Suite(suite_pictures.steps, suite_pictures.STEPS_EACH),
        "vae": Suite(suite_words.vae, USUAL),
        "judge": Suite(suite_judge.judge, USUAL),
    }
)


def run_suite(name: str, bench: Bench, model: str) -> Report:
    """Run a suite. Raises `InvalidRequest` for an unknown one."""
    if name not in SUITES:
        raise InvalidRequest(f"suite {name!r} is unknown; use one of {', '.join(SUITES)}", field="suite")
    suite = SUITES[name]
    suite.run(bench)
    return Report(name, model, bench.count(suite.usual), bench.notebook.rows, tuple(bench.notebook.shown))
