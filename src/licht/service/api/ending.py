"""The end of an API process, in two steps: first nothing new is taken, then nobody waits any more."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from licht.core.errors import NotAvailable
from licht.service.queue.records import State


class Stopping(NotAvailable):
    """This service is about to end: whoever asks again in a moment finds the next one."""

    code = "stopping"


STOPPED: Final = Stopping("the service is stopping; try again in a moment")
"""What everybody hears who could not be answered otherwise."""


class Ending:
    """How far it is. Set by a signal handler or another thread, read by everybody who waits for something."""

    def __init__(self) -> None:
        """Far away."""
        self.draining = False
        """No new jobs; what is in hand goes on, and everything that is asked is answered."""
        self.over = False
        """Whoever still waits is told to come back."""
        self._calls = 0

    def begin(self) -> None:
        """Take nothing new."""
        self.draining = True

    def finish(self) -> None:
        """Let nobody wait any more."""
        self.draining = self.over = True

    def stops(self, state: State | str) -> bool:
        """Whether a job in this state is not worth waiting for: no worker takes one from the queue any more."""
        return self.over or (self.draining and state == State.QUEUED)

    def check(self) -> None:
        """Raises `Stopping` where nothing new is taken."""
        if self.draining:
            raise Stopping("the service is stopping and takes nothing new; try again in a moment")

    @contextmanager
    def call(self) -> Iterator[None]:
        """A call that waits: the process stays for it while it can."""
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    @property
    def calls(self) -> int:
        """How many of them there are."""
        return self._calls
