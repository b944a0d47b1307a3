"""Storyboards: which job drew which frame of which story."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from licht.core.errors import UnknownJob
from licht.service.database.connect import AnyRow, Database
from licht.service.database.tables import FRAMES, SERIES


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, numbered from 1, and the job that drew it last; None once that job was deleted."""

    number: int
    prompt: str
    job_id: str | None


@dataclass(frozen=True, slots=True)
class Series:
    """A storyboard. `story` is what was asked for, with its pictures by their digests; times in seconds since 1970."""

    id: str
    key_id: str
    title: str
    story: Mapping[str, Any]
    created_at: float
    frames: tuple[Frame, ...]


class SeriesStore:
    """The storyboards of one database."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Work on `database`; `clock` gives seconds since 1970."""
        self._database = database
        self._clock = clock

    def add(self, connection: Connection, series: Series) -> None:
        """Write a new one, in the transaction that accepts its jobs."""
        values = {"id": series.id, "key_id": series.key_id, "title": series.title, "created_at": self._clock()}
        connection.execute(insert(SERIES).values(**values, story=json.dumps(series.story)))
        rows = [
            {"series_id": series.id, "number": frame.number, "prompt": frame.prompt, "job_id": frame.job_id}
            for frame in series.frames
        ]
        connection.execute(insert(FRAMES), rows)

    def redraw(self, connection: Connection, series_id: str, frame: Frame) -> None:
        """Put another drawing in a frame's place, in the transaction that accepts its job."""
        connection.execute(
            update(FRAMES)
            .where(FRAMES.c.series_id == series_id, FRAMES.c.number == frame.number)
            .values(job_id=frame.job_id, prompt=frame.prompt)
        )

    def append(self, connection: Connection, series_id: str, frame: Frame, story: Mapping[str, Any]) -> None:
        """Write one more frame and the story that has it, in the transaction that accepts its job."""
        values = {"number": frame.number, "prompt": frame.prompt, "job_id": frame.job_id}
        connection.execute(insert(FRAMES).values(series_id=series_id, **values))
        connection.execute(update(SERIES).where(SERIES.c.id == series_id).values(story=json.dumps(story)))

    def get(self, key_id: str, series_id: str) -> Series:
        """One of the key's. Raises `UnknownJob`."""
        with self._database.read() as connection:
            row = connection.execute(
                select(SERIES).where(SERIES.c.id == series_id, SERIES.c.key_id == key_id)
            ).one_or_none()
            if row is None:
                raise UnknownJob("there is no such series; check the id", field="id")
            frames = _frames(connection, [series_id])
        return _series(row, frames)

    def list(self, key_id: str, limit: int = 50) -> list[Series]:
        """The key's latest, newest first."""
        query = select(SERIES).where(SERIES.c.key_id == key_id).order_by(SERIES.c.created_at.desc()).limit(limit)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
            frames = _frames(connection, [row.id for row in rows])
        return [_series(row, frames) for row in rows]

    def remove(self, key_id: str, series_id: str) -> None:
        """Forget it; its jobs stay. Raises `UnknownJob`."""
        self.get(key_id, series_id)
        with self._database.write() as connection:
            connection.execute(delete(FRAMES).where(FRAMES.c.series_id == series_id))
            connection.execute(delete(SERIES).where(SERIES.c.id == series_id))


def _frames(connection: Connection, series_ids: Sequence[str]) -> dict[str, list[Frame]]:
    query = select(FRAMES).where(FRAMES.c.series_id.in_(series_ids)).order_by(FRAMES.c.number)
    found: dict[str, list[Frame]] = {each: [] for each in series_ids}
    for row in connection.execute(query):
        found[row.series_id].append(Frame(row.number, row.prompt, row.job_id))
    return found


def _series(row: AnyRow, frames: Mapping[str, Sequence[Frame]]) -> Series:
    return Series(row.id, row.key_id, row.title, json.loads(row.story), row.created_at, tuple(frames[row.id]))
