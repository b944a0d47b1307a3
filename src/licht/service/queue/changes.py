"""Waiting in the API for what workers commit: one look at the database for everybody who waits in this process."""

import asyncio
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import psycopg
from sqlalchemy import make_url

from licht.service.database.connect import Database
from licht.service.queue.settle import ENDED_CHANNEL

_LOG: Final = logging.getLogger(__name__)
_LOOK_S: Final = 0.01
_HEAR_S: Final = 1.0
_LEAST_S: Final = 0.02


class Changes:
    """Wakes who follows when something was committed. For one event loop; it looks only while somebody follows.

    SQLite counts the changes of its file, whatever they are; PostgreSQL announces the ends of jobs, and nothing else.
    """

    def __init__(self, database: Database) -> None:
        """Watch `database`."""
        self._database = database
        self._changed = asyncio.Event()
        self._count = 0
        self._followers = 0
        self._watch: asyncio.Task[None] | None = None

    @contextmanager
    def follow(self) -> Iterator["Following"]:
        """Watch from now on; the first `wait` returns after the first change from here."""
        self._followers += 1
        try:
            yield Following(self)
        finally:
            self._followers -= 1

    @property
    def count(self) -> int:
        """How many changes were noticed so far."""
        return self._count

    async def more(self, than: int, timeout_s: float) -> None:
        """Return once more changes were noticed `than` these, and after `timeout_s` at the latest."""
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look())
        if self._count == than:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), timeout_s)

    async def close(self) -> None:
        """Look no more."""
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch

    async def _look(self) -> None:
        try:
            await (self._count_changes() if self._database.is_sqlite else self._hear_ends())
        except (sqlite3.Error, psycopg.Error) as error:
            # whoever waits goes on at its own pace, and the next one to come tries again
            _LOG.warning("the database tells of no changes", extra={"reason": str(error)})
            await asyncio.sleep(_HEAR_S)

    async def _count_changes(self) -> None:
        path = make_url(self._database.url).database
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        try:
            seen = None
            while self._followers:
                version = connection.execute("PRAGMA data_version").fetchone()[0]
                if version != seen:
                    seen = version
                    self._tell()
                await asyncio.sleep(_LOOK_S)
        finally:
            connection.close()

    async def _hear_ends(self) -> None:
        url = self._database.url.set(drivername="postgresql").render_as_string(hide_password=False)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(f"LISTEN {ENDED_CHANNEL}")
            # what ended before this is announced to nobody
            self._tell()
            while self._followers:
                async for _ in connection.notifies(timeout=_HEAR_S, stop_after=1):
                    self._tell()

    def _tell(self) -> None:
        told, self._changed = self._changed, asyncio.Event()
        self._count += 1
        told.set()


class Following:
    """One who follows the changes, at his own pace."""

    def __init__(self, changes: Changes) -> None:
        """Nothing is seen yet."""
        self._changes = changes
        self._seen = changes.count

    async def wait(self, timeout_s: float) -> None:
        """Return when something has changed since the last call, and after `timeout_s` at the latest.

        However much is going on, that is not at once: fifty looks a second are enough for anybody.
        """
        await asyncio.sleep(_LEAST_S)
        await self._changes.more(self._seen, timeout_s)
        self._seen = self._changes.count
