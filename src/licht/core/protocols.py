"""What is put in from outside: interfaces that this project's parts share, and whoever installs it can fill."""

from collections.abc import Sequence
from typing import Protocol

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
