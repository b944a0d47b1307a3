"""Connections. SQLite runs in WAL mode with explicit transactions, so that writers queue up instead of failing."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

from sqlalchemy import URL, Connection, Engine, Row, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from licht.core.errors import InvalidSettings, NotAvailable
from licht.service.database.private import make_file, make_folder

_BUSY_TIMEOUT_S: Final = 30
_LOOK_S: Final = 0.001
_LONGEST_LOG_PAGES: Final = 16_384
"""64 MiB, should nobody call `checkpoint`."""
_POOL_SIZE: Final = 8


AnyRow: TypeAlias = Row[*tuple[Any, ...]]


class Database:
    """The rows of one service, as every process opens them for itself."""

    def __init__(self, url: str) -> None:
        """Open the database at `url`, an SQLAlchemy address. Raises `InvalidSettings` for one that cannot be used."""
        self.url = parse_address(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            file = Path(self.url.database or "")
            try:
                make_folder(file.parent)
                # what SQLite writes beside it gets the permissions of this file
                make_file(file)
            except OSError as error:
                raise InvalidSettings(
                    f"{file} cannot be opened ({error.strerror}); name a folder that can be written to", field="data"
                ) from error
            self._durable = _sqlite_engine(self.url, synchronous="FULL")
            self._light = _sqlite_engine(self.url, synchronous="NORMAL")
        else:
            self._durable = self._light = create_engine(self.url, pool_size=_POOL_SIZE, pool_pre_ping=True)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is on the disk when it returns: for what has been promised to somebody."""
        with _available(), self._durable.begin() as connection:
            yield connection

    @contextmanager
    def touch(self) -> Iterator[Connection]:
        """A transaction that survives the death of the process, but perhaps not of the machine: heartbeats, progress."""
        with _available(), self._light.begin() as connection:
            if not self.is_sqlite:
                connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view; it never waits for writers."""
        with _available(), self._light.connect() as connection:
            # SQLAlchemy's "begin" event below starts a deferred transaction for it
            yield connection.execution_options(licht_read=True)

    def checkpoint(self) -> None:
        """Copy SQLite's log into its file as far as nobody has to wait for it; to be called every few seconds."""
        self._checkpoint("PASSIVE")

    def compact(self) -> None:
        """After something was deleted: leave nothing of it in SQLite's log. PostgreSQL sees to that by itself."""
        self._checkpoint("TRUNCATE")

    def _checkpoint(self, how: str) -> None:
        if self.is_sqlite:
            with _available(), self._light.connect() as connection:
                raw: Any = connection.connection.dbapi_connection
                raw.execute(f"PRAGMA wal_checkpoint({how})").fetchall()

    def close(self) -> None:
        """Let go of all connections."""
        self._durable.dispose()
        self._light.dispose()


def parse_address(url: str) -> URL:
    """The address of a database, with the driver that is used here. Raises `InvalidSettings`."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise InvalidSettings(
            "database.url is no SQLAlchemy address; write postgresql://user:password@host/name", field="database.url"
        ) from error
    match parsed.get_backend_name():
        case "postgresql":
            return parsed.set(drivername="postgresql+psycopg")
        case "sqlite":
            if parsed.database in (None, "", ":memory:"):
                raise InvalidSettings(
                    "database.url is an SQLite in memory, which processes cannot share; name a file",
                    field="database.url",
                )
            return parsed.set(drivername="sqlite")
        case other:
            raise InvalidSettings(f"database.url names {other}; use sqlite or postgresql", field="database.url")


@contextmanager
def _available() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        raise NotAvailable("the database does not answer; try again in a moment") from error


def _sqlite_engine(url: URL, synchronous: str) -> Engine:
    engine = create_engine(url, pool_size=_POOL_SIZE, max_overflow=32, connect_args={"timeout": _BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: object) -> None:  # noqa: ANN401 - sqlite3's connection, as the event has it
        # the module's own transaction handling starts them late and deferred, which makes upgrades of locks fail
        connection.isolation_level = None
        cursor = connection.cursor()
        _when_free(cursor, "PRAGMA journal_mode=WAL")
        for pragma in (
            f"synchronous={synchronous}",
            "foreign_keys=ON",
            "temp_store=MEMORY",
            # what is deleted is overwritten, not only let go of
            "secure_delete=ON",
            # copying the log into the file takes many times what a commit does: `checkpoint` does it beside the callers
            f"wal_autocheckpoint={_LONGEST_LOG_PAGES}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if "licht_read" in connection.get_execution_options():
            connection.exec_driver_sql("BEGIN")
        else:
            _begin_writing(connection)

    return engine


def _begin_writing(connection: Connection) -> None:
    """Queue up for SQLite's one writer. SQLite's own waiting backs off to 100 ms, many times what a writer takes."""
    raw: Any = connection.connection.dbapi_connection
    raw.execute("PRAGMA busy_timeout=0")
    try:
        _when_free(raw, "BEGIN IMMEDIATE")
    finally:
        raw.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_S * 1000}")


def _when_free(raw: Any, statement: str) -> None:  # noqa: ANN401 - sqlite3's connection or cursor
    """Execute `statement` when no other connection is in its way.

    A new file is switched to WAL under a lock for which SQLite does not wait, whatever its timeout: of several
    processes that open it at the same moment, all but one would fail. Raises `NotAvailable` after `_BUSY_TIMEOUT_S`.
    """
    until = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            raw.execute(statement)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            if time.monotonic() > until:
                raise NotAvailable("the database does not answer; try again in a moment") from error
            time.sleep(_LOOK_S)
        else:
            return
