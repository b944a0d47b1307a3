"""A language model in the worker itself, which takes turns with the weights that draw: seldom is there room for both."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from licht.core.request import Picture
from licht.upsample.ask import Upsampler


class TurnByTurn:
    """Has everything else let go of before the language model is asked, and lets go of that at the end of its turn."""

    def __init__(self, model: Upsampler, close: Callable[[], None], make_room: Callable[[], None]) -> None:
        """Ask `model`, which `close` unloads; `make_room` unloads the rest."""
        self._model = model
        self._close = close
        self._make_room = make_room

    @contextmanager
    def turn(self) -> Iterator[None]:
        """All that is asked about one prompt."""
        self._make_room()
        try:
            yield
        finally:
            self._close()

    def answer(self, system: str, prompt: str, pictures: Sequence[Picture]) -> str:
        """The model's answer. Raises as it does."""
        return self._model.answer(system, prompt, pictures)
