"""The ranker that needs nothing but the model itself."""

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Final

from licht.core.request import Picture, Reference

if TYPE_CHECKING:
    from licht.engine.engine import Engine

NAME: Final = "likelihood"


class LikelihoodRanker:
    """Ranks pictures by how much better the model explains them with the prompt than without it."""

    def __init__(self, engine: "Engine") -> None:
        """Ask the model of `engine`."""
        self._engine = engine

    @property
    def name(self) -> str:
        """How results call it."""
        return NAME

    def score(self, prompt: str, pictures: Sequence[Picture], references: Sequence[Reference]) -> Sequence[float]:
        """One number a picture, the highest for the best. Raises as `rank`."""
        asking = self.rank(prompt, pictures, references)
        while True:
            try:
                next(asking)
            except StopIteration as done:
                scores: list[float] = done.value
                return scores

    def rank(
        self, prompt: str, pictures: Sequence[Picture], references: Sequence[Reference]
    ) -> Generator[float, None, Sequence[float]]:
        """The same, yielding which part is done after each look of the network. Raises `OutOfMemory`, `DoesNotFit`."""
        return (yield from self._engine.fits(prompt, pictures, references))
