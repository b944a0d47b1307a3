"""What a key has drawn: search in prompts, favourites, a page at a time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import JSON, ColumnElement, Select, cast, delete, func, select, type_coerce
from sqlalchemy.dialects import postgresql, sqlite

from licht.core.errors import UnknownJob
from licht.service.database.connect import Database
from licht.service.database.tables import FAVOURITES, JOBS
from licht.service.queue.records import Job, State
from licht.service.queue.store import job_of


@dataclass(frozen=True, slots=True)
class Piece:
    """A finished job, and whether its key has marked it."""

    job: Job
    favourite: bool


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for; None is anything. `before` is where the page before ended."""

    text: str | None = None
    favourite: bool | None = None
    route: str | None = None
    before: tuple[float, str] | None = None
    limit: int = 50


class Gallery:
    """The finished pictures of one database."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Work on `database`; `clock` gives seconds since 1970."""
        self._database = database
        self._clock = clock

    def find(self, key_id: str, search: Search) -> list[Piece]:
        """The key's pictures, newest first, at most `search.limit`."""
        query = self._mine(key_id).order_by(JOBS.c.created_at.desc(), JOBS.c.id.desc()).limit(search.limit)
        if search.text:
            # the plain function: SQLite knows no other than that of ASCII letters
            query = query.where(func.lower(self._prompt()).contains(search.text.lower(), autoescape=True))
        if search.favourite is not None:
            query = query.where(FAVOURITES.c.job_id.is_not(None) if search.favourite else FAVOURITES.c.job_id.is_(None))
        if search.route is not None:
            query = query.where(JOBS.c.route == search.route)
        if search.before is not None:
            at, job_id = search.before
            query = query.where((JOBS.c.created_at < at) | ((JOBS.c.created_at == at) & (JOBS.c.id < job_id)))
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [Piece(job_of(row), row.favourite_at is not None) for row in rows]

    def get(self, key_id: str, job_id: str) -> Piece:
        """One picture of the key. Raises `UnknownJob`."""
        with self._database.read() as connection:
            row = connection.execute(self._mine(key_id).where(JOBS.c.id == job_id)).one_or_none()
        if row is None:
            raise UnknownJob("there is no such picture; check the id", field="id")
        return Piece(job_of(row), row.favourite_at is not None)

    def mark(self, key_id: str, job_id: str, favourite: bool) -> Piece:
        """Make it a favourite, or no longer. Raises `UnknownJob`."""
        self.get(key_id, job_id)
        insert = sqlite.insert if self._database.is_sqlite else postgresql.insert
        with self._database.write() as connection:
            if favourite:
                added = insert(FAVOURITES).values(job_id=job_id, at=self._clock())
                connection.execute(added.on_conflict_do_nothing(index_elements=[FAVOURITES.c.job_id]))
            else:
                connection.execute(delete(FAVOURITES).where(FAVOURITES.c.job_id == job_id))
        return self.get(key_id, job_id)

    def job_of_file(self, key_id: str, digest: str) -> Job | None:
        """The key's job whose result is the file with this SHA-256, if there is one."""
        query = self._mine(key_id).where(self._text_of(JOBS.c.result, "blob") == digest).limit(1)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return job_of(row) if row is not None else None

    def job_of_payload(self, key_id: str, payload: str) -> Job | None:
        """The key's job whose pictures' watermark holds `payload`, 16 hexadecimal digits: the last ones of its id."""
        ending = f"{payload[:4]}-{payload[4:]}"
        query = self._mine(key_id).where(JOBS.c.id.endswith(ending, autoescape=True)).limit(1)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return job_of(row) if row is not None else None

    def _mine(self, key_id: str) -> Select[*tuple[Any, ...]]:
        joined = JOBS.outerjoin(FAVOURITES, FAVOURITES.c.job_id == JOBS.c.id)
        return (
            select(JOBS, FAVOURITES.c.at.label("favourite_at"))
            .select_from(joined)
            .where(JOBS.c.key_id == key_id, JOBS.c.state == State.READY.value)
        )

    def _prompt(self) -> ColumnElement[str]:
        return self._text_of(JOBS.c.task, "prompt")

    def _text_of(self, column: ColumnElement[str], name: str) -> ColumnElement[str]:
        """A text field of a JSON document: SQLite reads JSON from any text, PostgreSQL wants to be told."""
        document = type_coerce(column, JSON) if self._database.is_sqlite else cast(column, JSON)
        text: ColumnElement[str] = document[name].as_string()
        return text
