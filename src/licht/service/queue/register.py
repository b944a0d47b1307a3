"""Who is at work: one row for each worker, which says whether it has drawn a first picture and is still alive."""

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from sqlalchemy import delete, insert, select, update

from licht.service.database.connect import Database
from licht.service.database.tables import WORKERS


@dataclass(frozen=True, slots=True)
class About:
    """What the API has to know of a worker's weights: it cannot open them itself. Sizes in pixels.

    A picture of `width` x `height` took `fixed_s` seconds and `step_s` more for each step when the worker started.
    """

    default_steps: int
    default_guidance: float | None
    takes_guidance: bool
    max_references: int
    width: int
    height: int
    fixed_s: float = 0.0
    step_s: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker as it was last heard of. Times in seconds since 1970."""

    id: str
    host: str
    pid: int
    model: str
    licence: str
    started_at: float
    heartbeat_at: float
    ready_at: float | None
    memory_bytes: int | None
    device_memory_bytes: int | None
    about: About | None


class Register:
    """The workers of one database."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Work on `database`."""
        self._database = database
        self._clock = clock

    def enter(self, worker_id: str, model: str, licence: str) -> None:
        """Announce a worker that is starting. The row of a worker of the same name goes."""
        now = self._clock()
        with self._database.touch() as connection:
            connection.execute(delete(WORKERS).where(WORKERS.c.id == worker_id))
            connection.execute(
                insert(WORKERS).values(
                    id=worker_id,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    model=model,
                    licence=licence,
                    started_at=now,
                    heartbeat_at=now,
                )
            )

    def ready(self, worker_id: str, about: About | None = None) -> None:
        """The worker has drawn its first picture."""
        values = {"ready_at": self._clock(), "about": json.dumps(asdict(about)) if about is not None else None}
        with self._database.touch() as connection:
            connection.execute(update(WORKERS).where(WORKERS.c.id == worker_id).values(values))

    def beat(self, worker_id: str, memory_bytes: int | None = None, device_memory_bytes: int | None = None) -> None:
        """The worker is alive, and takes so much memory: resident, and on its device where that has its own."""
        values = {
            "heartbeat_at": self._clock(),
            "memory_bytes": memory_bytes,
            "device_memory_bytes": device_memory_bytes,
        }
        with self._database.touch() as connection:
            connection.execute(update(WORKERS).where(WORKERS.c.id == worker_id).values(values))

    def leave(self, worker_id: str) -> None:
        """The worker is gone."""
        with self._database.touch() as connection:
            connection.execute(delete(WORKERS).where(WORKERS.c.id == worker_id))

    def list(self) -> list[WorkerRow]:
        """All of them, the dead ones that nobody has removed included."""
        with self._database.read() as connection:
            rows = connection.execute(select(WORKERS).order_by(WORKERS.c.started_at)).all()
        return [
            WorkerRow(**{**row._asdict(), "about": About(**json.loads(row.about)) if row.about else None})
            for row in rows
        ]
