"""How much of what callers send may be in memory: each body for itself, all open ones together, and how slowly."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope

SMALL_BYTES: Final = 64 * 1024
"""Bodies up to here are not counted: whoever sends words only is let through however many pictures are arriving."""
_PART_WITHOUT_KEY: Final = 4
"""Callers without a key, where a route takes them, share this part of the whole: one quarter."""
_PATIENCE_S: Final = 30.0
_LEAST_BYTES_PER_S: Final = 32 * 1024
TOO_LARGE: Final = "the request is too large; send smaller pictures"
_TOO_MANY: Final = "too many large requests are open at this moment; try again"
_TOO_SLOW: Final = "the request arrives too slowly; send it again"
WITHIN: Final = "licht.within"
"""Set in the scope of calls that this process makes to itself: what they carry was counted where it came in."""


class OpenBodies:
    """What all open requests hold together."""

    def __init__(self, one_bytes: int, all_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        """At most `one_bytes` of a body, and `all_bytes` of all that are open at a time."""
        self.one_bytes = one_bytes
        self._all_bytes = all_bytes
        self._clock = clock
        self._taken = {True: 0, False: 0}

    @property
    def taken_bytes(self) -> int:
        """How much is counted at this moment."""
        return sum(self._taken.values())

    def open(self, scope: Scope, receive: Receive, declared: int | None) -> "OpenBody":
        """The body of a request that says it has `declared` bytes (None: it does not say)."""
        return OpenBody(self, scope, receive, declared, self._clock)

    def take(self, count: int, known: bool) -> None:
        """Count so many bytes of a caller who is `known` by a key or not. Raises `HTTPException` 503."""
        most = self._all_bytes if known else self._all_bytes // _PART_WITHOUT_KEY
        if self._taken[known] + count > most or self.taken_bytes + count > self._all_bytes:
            raise HTTPException(503, _TOO_MANY, {"Retry-After": "2"})
        self._taken[known] += count

    def give_back(self, count: int, known: bool) -> None:
        """Count them no more."""
        self._taken[known] -= count


class OpenBody:
    """The body of one request. It counts from the first look at it, which comes after the look at the key."""

    def __init__(
        self, bodies: OpenBodies, scope: Scope, receive: Receive, declared: int | None, clock: Callable[[], float]
    ) -> None:
        """Nothing is read yet, and nothing counted."""
        self._bodies = bodies
        self._scope = scope
        self._receive = receive
        self._declared = declared
        self._clock = clock
        self._begun: float | None = None
        self._known = False
        self._seen = 0
        self._taken = 0
        self._whole = False

    async def receive(self) -> Message:
        """The next message. Raises `HTTPException` 413, 503 or 408; what is unread then is not read any more."""
        if self._whole:
            return await self._receive()
        if self._begun is None:
            self._begun = self._clock()
            self._known = "key" in self._scope.get("state", {})
            self._count(self._declared or 0)
        until = self._begun + _PATIENCE_S + self._seen / _LEAST_BYTES_PER_S
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, until - self._clock()))
        except TimeoutError:
            raise HTTPException(408, _TOO_SLOW, {"Connection": "close"}) from None
        self._seen += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._seen > self._bodies.one_bytes:
            # its end may never come: the connection goes with it
            raise HTTPException(413, TOO_LARGE, {"Connection": "close"})
        self._count(self._seen)
        return message

    def _count(self, so_far: int) -> None:
        if so_far <= max(SMALL_BYTES, self._taken) or self._scope.get(WITHIN, False):
            return
        self._bodies.take(so_far - self._taken, self._known)
        self._taken = so_far

    def close(self) -> None:
        """The request has been answered."""
        self._bodies.give_back(self._taken, self._known)
        self._taken = 0
