"""uvicorn, with an end in two steps: it answers while the work in hand is finished, and only then closes."""

import signal
import time
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from licht.service.api.ending import Ending

_LAST_WORDS_S: Final = 1
"""So long may answers take after nobody waits any more."""


class DrainingServer(uvicorn.Server):
    """Serves until it was told to end, and open calls have ended with it.

    SIGTERM begins the draining. It is over when no call waits any more, and the supervisor has said that the workers are
    done too (SIGINT); at the latest after `limit_s`.
    """

    def __init__(self, app: FastAPI, ending: Ending, limit_s: float, alone: bool) -> None:
        """Serve `app`; `alone`, nobody says when the workers are done, and nothing is known of them."""
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_LAST_WORDS_S,
            )
        )
        self._ending = ending
        self._limit_s = limit_s
        self._told = alone
        self._until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal has come."""
        del frame
        self._told = self._told or sig == signal.SIGINT
        self._ending.begin()

    def hurry(self) -> None:
        """Nobody is left to say when: end as soon as no call waits."""
        self._told = True
        self._ending.begin()

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second: whether it is time."""
        if self._ending.draining:
            now = time.monotonic()
            self._until = self._until if self._until is not None else now + self._limit_s
            if now >= self._until or (self._told and not self._ending.calls):
                self._ending.finish()
                self.should_exit = True
        return await super().on_tick(counter)
