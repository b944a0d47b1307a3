"""Pictures that a key keeps as references: the files lie in the storage, by the digest of their pixels."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, func, insert, select, union

from licht.core.errors import TooManyJobs, UnknownJob
from licht.service.database.connect import Database
from licht.service.database.tables import BLOBS, JOBS, KEYS, UPLOADS

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
        """Whether the key keeps this picture, or one of its jobs has it."""
        kept = select(UPLOADS.c.digest).where(UPLOADS.c.key_id == key_id, UPLOADS.c.digest == digest)
        used = (
            select(BLOBS.c.digest)
            .join(JOBS, JOBS.c.id == BLOBS.c.job_id)
            .where(JOBS.c.key_id == key_id, BLOBS.c.digest == digest)
        )
        with self._database.read() as connection:
            return connection.execute(union(kept, used).limit(1)).first() is not None

    def remove(self, key_id: str, digest: str) -> bool:
        """Keep it no longer; returns whether nobody needs the file any more. Raises `UnknownJob`."""
        self.get(key_id, digest)
        needed = union(*(select(table.c.digest).where(table.c.digest == digest) for table in (UPLOADS, BLOBS)))
        with self._database.write() as connection:
            connection.execute(delete(UPLOADS).where(UPLOADS.c.key_id == key_id, UPLOADS.c.digest == digest))
            return connection.execute(needed.limit(1)).first() is None
