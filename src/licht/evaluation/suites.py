"""Suites: held-out prompts drawn, judged, and counted. Each figure has its ceiling: the same count on true renders."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from licht.core.errors import InvalidRequest
from licht.evaluation.intervals import Row
from licht.evaluation.judge import Judge
from licht.evaluation.reading import Reader
from licht.evaluation.seen import Seen
from licht.model.autoencoder import Autoencoder

SEED: Final = 7_000
"""Scenes of suites come from here; training takes others, and another split."""
BOLD: Final = 500
"""Pictures a row for those that the project is held to most, unless asked otherwise."""
USUAL: Final = 200


class Draws(Protocol):
    """Whatever draws: a model, or in tests the renderer itself."""

    def draw(self, prompt: str, seed: int, references: Sequence[Tensor] = ()) -> Tensor:
        """uint8 (H, W, 3)."""
        ...


@dataclass(frozen=True, slots=True)
class Shown:
    """One drawn picture for the contact sheet."""

    picture_HWC: Tensor
    label: str
    right: bool


@dataclass
class Notebook:
    """What a suite writes down as it goes."""

    rows: dict[str, Row] = field(default_factory=dict)
    shown: list[Shown] = field(default_factory=list)
    done: int = 0


@dataclass(frozen=True)
class Bench:
    """What a suite works with."""

    drawer: Draws | None
    judge: Judge | None
    reader: Reader | None
    autoencoder: Autoencoder | None
    at_steps: Callable[[int], Draws | None] | None
    n: int | None
    on_progress: Callable[[int], None]
    notebook: Notebook

    def count(self, usual: int) -> int:
        """Pictures of a row."""
        return usual if self.n is None else self.n

    def draw(self, prompt: str, seed: int, references: Sequence[Tensor] = (), drawer: Draws | None = None) -> Tensor:
        """Draw and tell how far it is. Raises `InvalidRequest` where nothing draws."""
        chosen = drawer or self.drawer
        if chosen is None:
            raise InvalidRequest("this suite needs what draws; only the suite vae goes without", field="model")
        picture = chosen.draw(prompt, seed, references)
        self.notebook.done += 1
        self.on_progress(self.notebook.done)
        return picture

    def look(self, pictures: Sequence[Tensor]) -> list[Seen]:
        """What the judge sees in pictures of one size."""
        if self.judge is None:
            raise InvalidRequest("this suite needs a judge; only the suite vae goes without", field="suite")
        return self.judge.look(torch.stack(list(pictures))) if pictures else []

    def keep(self, row: str, pictures: Sequence[Tensor], labels: Sequence[str], hits: Sequence[bool]) -> None:
        """Remember pictures for the sheet."""
        for picture, label, hit in zip(pictures, labels, hits, strict=True):
            self.notebook.shown.append(Shown(picture, f"{'+' if hit else '-'} {row}: {label}", hit))


@dataclass(frozen=True, slots=True)
class Report:
    """What a suite found."""

    suite: str
    model: str
    n: int
    rows: Mapping[str, Row]
    shown: tuple[Shown, ...]

    def as_json(self) -> dict[str, Any]:
        """`{suite, model, n, rows: {name: {value, low, high, n}}}`; what could not be measured is null.

        The first `n` is that of the main rows.
        """
        rows = {
            name: {"value": _number(row.value), "low": _number(row.low), "high": _number(row.high), "n": row.n}
            for name, row in self.rows.items()
        }
        return {"suite": self.suite, "model": self.model, "n": self.n, "rows": rows}

    def sheet(self, each: int = 8) -> tuple[list[Tensor], list[str]]:
        """Pictures and labels of up to `each` successes and `each` failures of every row."""
        chosen: list[Shown] = []
        for row in dict.fromkeys(_row_of(one) for one in self.shown):
            of_row = [one for one in self.shown if _row_of(one) == row]
            for right in (True, False):
                chosen += [one for one in of_row if one.right is right][:each]
        return [one.picture_HWC for one in chosen], [one.label for one in chosen]


def _row_of(one: Shown) -> str:
    return one.label[2:].partition(":")[0]


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
