"""Pictures that a key keeps as references: the files lie in the storage, by the digest of their pixels."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, Select, delete, func, insert, select, union

from licht.core.errors import TooManyJobs, UnknownJob
from licht.service.database.connect import Database
from licht.service.database.files import needed_files
from licht.service.database.tables import ACTIVE, BLOBS, JOBS, KEYS, REMOVED_UPLOADS, UPLOADS

MOST: Final = 1000
"""So many references may a key keep."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A kept picture. Sizes in pixels, times in seconds since 1970."""

    digest: str
    name: str
    width: int
    height: int
    created_at: float


class Uploads:
    """The kept references of one database."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Work on `database`; `clock` gives seconds since 1970."""
        self._database = database
        self._clock = clock

    def add(self, key_id: str, digest: str, name: str, size: tuple[int, int]) -> tuple[Upload, bool]:
        """Keep a stored picture; returns it, and whether it is new to the key. Raises `TooManyJobs`."""
        made = Upload(digest, name, size[0], size[1], self._clock())
        with self._database.write() as connection:
            # the key's row is locked, so that two requests cannot add the same picture, or one too many
            connection.execute(select(KEYS.c.id).where(KEYS.c.id == key_id).with_for_update())
            mine = UPLOADS.c.key_id == key_id
            known = connection.execute(select(UPLOADS).where(mine, UPLOADS.c.digest == digest)).one_or_none()
            if known is not None:
                return Upload(*known[1:]), False
            connection.execute(delete(REMOVED_UPLOADS).where(*_removed(key_id, digest)))
            count = connection.execute(select(func.count()).where(mine)).scalar_one()
            if count >= MOST:
                raise TooManyJobs(f"{count} references are kept and {MOST} are allowed; delete some")
            connection.execute(
                insert(UPLOADS).values(
                    key_id=key_id, digest=digest, name=name, width=made.width, height=made.height,
                    created_at=made.created_at,
                )
            )  # fmt: skip
        return made, True

    def list(self, key_id: str) -> list[Upload]:
        """All of a key's, newest first."""
        query = select(UPLOADS).where(UPLOADS.c.key_id == key_id).order_by(UPLOADS.c.created_at.desc())
        with self._database.read() as connection:
            return [Upload(*row[1:]) for row in connection.execute(query)]

    def get(self, key_id: str, digest: str) -> Upload:
        """One of the key's. Raises `UnknownJob`."""
        query = select(UPLOADS).where(UPLOADS.c.key_id == key_id, UPLOADS.c.digest == digest)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise UnknownJob("there is no such reference; check the id", field="id")
        return Upload(*row[1:])

    def may_read(self, key_id: str, digest: str) -> bool:
        """Whether the key keeps this picture, or one of its jobs has it and the key has not deleted it since."""
        kept = select(UPLOADS.c.digest).where(UPLOADS.c.key_id == key_id, UPLOADS.c.digest == digest)
        removed = select(REMOVED_UPLOADS.c.picture).where(*_removed(key_id, digest)).exists()
        used = _used(key_id, digest).where(~removed)
        with self._database.read() as connection:
            return connection.execute(union(kept, used).limit(1)).first() is not None

    def remove(self, key_id: str, digest: str) -> bool:
        """Keep it no longer; returns whether nobody needs the file any more. Raises `UnknownJob`.

        From here on the key's requests cannot name it. Jobs that have ended forget it now, active ones when they end,
        see `forget`.
        """
        self.get(key_id, digest)
        with self._database.write() as connection:
            connection.execute(delete(UPLOADS).where(UPLOADS.c.key_id == key_id, UPLOADS.c.digest == digest))
            now = self._clock()
            if not _forgotten(connection, key_id, digest, now):
                connection.execute(insert(REMOVED_UPLOADS).values(key_id=key_id, picture=digest, removed_at=now))
            return not needed_files(connection, [digest])

    def forget(self) -> tuple[str, ...]:
        """Let jobs that have ended since forget what was removed; returns the files that nobody needs any more."""
        with self._database.read() as connection:
            if connection.execute(select(REMOVED_UPLOADS.c.picture).limit(1)).first() is None:
                return ()
        free: set[str] = set()
        with self._database.write() as connection:
            for key_id, picture, at in connection.execute(select(REMOVED_UPLOADS)).all():
                if _forgotten(connection, key_id, picture, at):
                    connection.execute(delete(REMOVED_UPLOADS).where(*_removed(key_id, picture)))
                    free.add(picture)
            return tuple(sorted(free - needed_files(connection, free)))


def _removed(key_id: str, digest: str) -> tuple[ColumnElement[bool], ...]:
    return REMOVED_UPLOADS.c.key_id == key_id, REMOVED_UPLOADS.c.picture == digest


def _used(key_id: str, digest: str) -> Select[tuple[str]]:
    """The picture, if a job of the key has it."""
    return (
        select(BLOBS.c.digest)
        .join(JOBS, JOBS.c.id == BLOBS.c.job_id)
        .where(JOBS.c.key_id == key_id, BLOBS.c.digest == digest)
    )


def _forgotten(connection: Connection, key_id: str, digest: str, removed_at: float) -> bool:
    """Take the picture from the key's jobs of before that have ended; whether there are no others."""
    before = (JOBS.c.key_id == key_id, JOBS.c.created_at <= removed_at)
    ended = select(JOBS.c.id).where(*before, JOBS.c.state.not_in(ACTIVE))
    connection.execute(delete(BLOBS).where(BLOBS.c.digest == digest, BLOBS.c.job_id.in_(ended)))
    left = _used(key_id, digest).where(JOBS.c.created_at <= removed_at)
    return connection.execute(left.limit(1)).first() is None
