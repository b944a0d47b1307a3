"""Pictures that somebody wants looked at: where they come from is told by a worker, at once and free of charge.

A look is no job: nobody is charged, nothing is kept, and a worker looks while it draws. The row lives as long as its
caller waits.
"""

import json
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, func, insert, select, text, update

from licht.core.errors import LeaseLost, NotAvailable, TooManyJobs, UnknownJob
from licht.service.database.connect import Database
from licht.service.database.tables import LOOKS, WORKERS
from licht.service.queue.settle import ENDED_CHANNEL
from licht.service.queue.submit import CHANNEL

_MOST_ATTEMPTS: Final = 2
"""A look that has lost two workers is given up."""
_SALT_BYTES: Final = 16
_WAITING: Final = (
    select(LOOKS.c.id)
    .where(LOOKS.c.state == "queued", LOOKS.c.created_at > bindparam("since"))
    .order_by(LOOKS.c.created_at)
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class Look:
    """A picture in the hands of one worker. `attempt` is the fencing token."""

    id: str
    digest: str
    owner: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found, as `licht.safety.examine` has it, or the code and the words of why nothing was."""

    report: Mapping[str, Any] | None = None
    error_code: str | None = None
    error: str | None = None


class Looks:
    """The looks of one database. A picture waits at most `wait_s`; a worker is dead after `lease_s` of silence."""

    def __init__(
        self, database: Database, wait_s: float, lease_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        """Work on `database`; `clock` gives seconds since 1970."""
        self.database = database
        self.wait_s = wait_s
        self._lease_s = lease_s
        self._clock = clock

    def submit(self, key_id: str | None, digest: str, most: int) -> str:
        """Have the stored file `digest` looked at; returns the id of the look.

        At most `most` at a time of one key, one of all who have none. Raises `TooManyJobs`, `NotAvailable`.
        """
        now, look_id = self._clock(), str(uuid.uuid4())
        waiting = select(func.count()).where(
            LOOKS.c.key_id == key_id, LOOKS.c.state != "ended", LOOKS.c.created_at > now - self.wait_s
        )
        with self.database.touch() as connection:
            count = int(connection.execute(waiting).scalar_one())
            if key_id is None and count:
                raise NotAvailable("another picture is being looked at; try again in a moment")
            if count >= most:
                raise TooManyJobs(f"{count} pictures of this key are being looked at; wait for one to end")
            row = {"id": look_id, "key_id": key_id, "digest": digest, "state": "queued", "attempt": 0}
            connection.execute(insert(LOOKS), {**row, "created_at": now})
            _announce(connection, CHANNEL)
        return look_id

    def answer(self, look_id: str) -> Answer | None:
        """What was found; None as long as nobody has looked. Raises `UnknownJob`."""
        with self.database.read() as connection:
            row = connection.execute(select(LOOKS.c.state, LOOKS.c.answer).where(LOOKS.c.id == look_id)).one_or_none()
        if row is None:
            raise UnknownJob("there is no such look", field="id")
        return Answer(**json.loads(row.answer)) if row.state == "ended" else None

    def drop(self, look_id: str) -> None:
        """Nobody waits for it any more."""
        with self.database.touch() as connection:
            connection.execute(delete(LOOKS).where(LOOKS.c.id == look_id))

    def drop_older(self, than_s: float) -> int:
        """Forget what was left behind by callers that died; returns how many."""
        with self.database.touch() as connection:
            return connection.execute(delete(LOOKS).where(LOOKS.c.created_at < self._clock() - than_s)).rowcount

    def claim(self, owner: str) -> Look | None:
        """The next picture that somebody still waits for, or None."""
        since = {"since": self._clock() - self.wait_s}
        with self.database.read() as connection:
            if connection.execute(_WAITING, since).one_or_none() is None:
                return None
        with self.database.touch() as connection:
            chosen = connection.execute(_WAITING.with_for_update(skip_locked=True), since).scalar()
            if chosen is None:
                return None
            row = connection.execute(
                update(LOOKS)
                .where(LOOKS.c.id == chosen)
                .values(state="running", owner=owner, attempt=LOOKS.c.attempt + 1)
                .returning(LOOKS.c.digest, LOOKS.c.attempt)
            ).one()
        return Look(chosen, row.digest, owner, row.attempt)

    def finish(self, look: Look, answer: Answer) -> None:
        """Tell what was found. Raises `LeaseLost` if nobody waits, or another worker has it."""
        told = {"report": answer.report, "error_code": answer.error_code, "error": answer.error}
        held = (LOOKS.c.id == look.id, LOOKS.c.owner == look.owner, LOOKS.c.attempt == look.attempt)
        with self.database.touch() as connection:
            done = connection.execute(
                update(LOOKS)
                .where(*held, LOOKS.c.state == "running")
                .values(state="ended", owner=None, answer=json.dumps(told))
            )
            _announce(connection, ENDED_CHANNEL)
        if done.rowcount == 0:
            raise LeaseLost("nobody waits for this look any more")

    def reap(self) -> int:
        """Take looks from workers that are gone; one that has lost several is given up. Returns how many."""
        alive = select(WORKERS.c.id).where(WORKERS.c.heartbeat_at > self._clock() - self._lease_s)
        lost = (LOOKS.c.state == "running", LOOKS.c.owner.not_in(alive))
        with self.database.read() as connection:
            if connection.execute(select(LOOKS.c.id).where(*lost).limit(1)).one_or_none() is None:
                return 0
        told = {"report": None, "error_code": "worker_died", "error": "workers died while they looked at this picture"}
        with self.database.touch() as connection:
            spent = LOOKS.c.attempt >= _MOST_ATTEMPTS
            ended = update(LOOKS).where(*lost, spent).values(state="ended", owner=None, answer=json.dumps(told))
            again = update(LOOKS).where(*lost).values(state="queued", owner=None)
            count = connection.execute(ended).rowcount + connection.execute(again).rowcount
            _announce(connection, CHANNEL)
            _announce(connection, ENDED_CHANNEL)
        return count


def sealed(data: bytes) -> bytes:
    """A file as it is stored for a look: under a hash of its own, so that no other row ever needs the same file."""
    return secrets.token_bytes(_SALT_BYTES) + data


def unsealed(stored: bytes) -> bytes:
    """The file as it was sent."""
    return stored[_SALT_BYTES:]


def _announce(connection: Connection, channel: str) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": channel})
