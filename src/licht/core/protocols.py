"""What is put in from outside: interfaces that this project's parts share, and whoever installs it can fill."""

from collections.abc import Generator, Sequence
from typing import Protocol, runtime_checkable

from licht.core.request import Picture, Reference


class Ranker(Protocol):
    """Says which of several pictures is the best one for a prompt."""

    @property
    def name(self) -> str:
        """How results call it."""
        ...

    def score(self, prompt: str, pictures: Sequence[Picture], references: Sequence[Reference]) -> Sequence[float]:
        """One number a picture, the highest for the best. Raises errors of the tree."""
        ...


@runtime_checkable
class SteppedRanker(Ranker, Protocol):
    """A ranker that takes its time: closing `rank` stops it within a step."""

    def rank(
        self, prompt: str, pictures: Sequence[Picture], references: Sequence[Reference]
    ) -> Generator[float, None, Sequence[float]]:
        """The same as `score`; yields which part is done after each step."""
        ...
