"""Waiting for work without asking the tables: PostgreSQL announces new jobs, SQLite counts changes of its file."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from sqlalchemy import make_url

from licht.core.errors import NotAvailable
from licht.service.database.connect import Database
from licht.service.queue.submit import CHANNEL

_LOOK_S: Final = 0.005


@contextmanager
def _available() -> Iterator[None]:
    try:
        yield
    except psycopg.OperationalError as error:
        raise NotAvailable("the database does not answer; try again in a moment") from error


class Waker:
    """Returns early from `wait` when something was committed. Used by one thread; open it with `with`.

    Both may raise `NotAvailable`.
    """

    def __init__(self, database: Database) -> None:
        """Watch `database`."""
        self._database = database
        self._listener: psycopg.Connection[Any] | None = None
        self._sqlite: Any = None
        self._seen = -1

    def __enter__(self) -> Self:
        if self._database.is_sqlite:
            import sqlite3

            path = make_url(self._database.url).database
            self._sqlite = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        else:
            url = self._database.url.set(drivername="postgresql").render_as_string(hide_password=False)
            with _available():
                self._listener = psycopg.connect(url, autocommit=True)
                self._listener.execute(f"LISTEN {CHANNEL}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for opened in (self._listener, self._sqlite):
            if opened is not None:
                opened.close()

    def wait(self, timeout_s: float) -> bool:
        """Sleep until something has changed, at most `timeout_s`; True if it has."""
        if self._listener is not None:
            with _available():
                return any(True for _ in self._listener.notifies(timeout=timeout_s, stop_after=1))
        until = time.monotonic() + timeout_s
        while True:
            version = self._sqlite.execute("PRAGMA data_version").fetchone()[0]
            if version != self._seen:
                self._seen = version
                return True
            left_s = until - time.monotonic()
            if left_s <= 0:
                return False
            time.sleep(min(_LOOK_S, left_s))
