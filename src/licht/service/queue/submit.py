"""Accepting jobs: limits, credits, idempotency and the place in the fair order, in one transaction.

The order is start-time fair queueing (Goyal, Vin, Cheng 1996): a job starts, on a clock that counts work instead of
time, where its key's last job ends, but never in the past. `rank` is that start, less `priority_work` for each level of
priority. It never changes, so claiming is one look into an index; and because the clock moves on with the work done, a
waiting job is overtaken only by a bounded amount of later work, whatever its priority.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, text, update

from licht.core.errors import (
    IdempotencyConflict,
    IdempotencyRunning,
    InsufficientCredits,
    NotAuthenticated,
    TooManyJobs,
)
from licht.service.database.connect import AnyRow, Database
from licht.service.database.tables import ACTIVE, BLOBS, IDEMPOTENCY, JOBS, KEYS
from licht.service.queue.records import Accepted, Idempotency, NewJob, QueueLimits, State
from licht.service.queue.settle import ENDED, final_values, settle

CHANNEL = "licht_jobs"
"""Where PostgreSQL announces new jobs."""

# Built once: putting a statement together takes SQLAlchemy longer than SQLite takes to run it.
_KEY: Final = select(KEYS).where(KEYS.c.id == bindparam("this")).with_for_update()
_ACTIVE: Final = select(func.count(), func.coalesce(func.sum(JOBS.c.cost_milli), 0)).where(
    JOBS.c.key_id == bindparam("this"), JOBS.c.state.in_(ACTIVE)
)
_FINISH: Final = update(KEYS).where(KEYS.c.id == bindparam("this"))
_INSERT: Final = insert(JOBS).returning(*ENDED)
_TOKEN: Final = select(IDEMPOTENCY).where(
    IDEMPOTENCY.c.key_id == bindparam("this"), IDEMPOTENCY.c.token == bindparam("given")
)
_FORGET: Final = delete(IDEMPOTENCY).where(
    IDEMPOTENCY.c.key_id == bindparam("this"), IDEMPOTENCY.c.token == bindparam("given")
)
_VIRTUAL_TIME: Final = select(
    func.coalesce(
        select(func.max(JOBS.c.fair_start)).where(JOBS.c.state == State.RUNNING.value).scalar_subquery(),
        select(func.min(JOBS.c.fair_start)).where(JOBS.c.state == State.QUEUED.value).scalar_subquery(),
        select(func.max(KEYS.c.fair_finish)).scalar_subquery(),
        0.0,
    )
)


def submit(
    database: Database,
    limits: QueueLimits,
    clock: Callable[[], float],
    jobs: Sequence[NewJob],
    beside: Callable[[Connection], None] | None = None,
) -> Accepted:
    """Accept all of `jobs`, of one key, or none; when this returns, they are on the disk.

    The idempotency token is that of the first job. `beside` writes what belongs to them in the same transaction.
    Raises `TooManyJobs`, `InsufficientCredits`, `IdempotencyConflict`, `IdempotencyRunning`, `NotAuthenticated` (the
    key was revoked).
    """
    now, first = clock(), jobs[0]
    with database.write() as connection:
        for new in jobs:
            # locking the key's row makes its limits exact: parallel submits of one key queue up here
            key = connection.execute(_KEY, {"this": new.key_id}).one_or_none()
            if key is None or key.revoked_at is not None:
                raise NotAuthenticated("the key was revoked meanwhile; use another one")
            if new is first and new.idempotency is not None:
                known = replay(connection, new.key_id, new.idempotency)
                if known is not None:
                    return known
            if new.outcome is None:
                _check_limits(connection, key, new, limits)
            _insert(connection, key, new, limits, now)
        if beside is not None:
            beside(connection)
        if any(new.outcome is None for new in jobs) and connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": CHANNEL})
    return Accepted(first.id)


def replay(connection: Connection, key_id: str, idempotency: Idempotency) -> Accepted | None:
    """What a key's token stands for already, if anything. Raises `IdempotencyConflict`, `IdempotencyRunning`."""
    first = connection.execute(_TOKEN, {"this": key_id, "given": idempotency.token}).one_or_none()
    if first is None:
        return None
    if first.body_hash != idempotency.body_hash:
        raise IdempotencyConflict(
            "this Idempotency-Key was used for another request; use a new key for a new request",
            field="Idempotency-Key",
        )
    if idempotency.awaits_end:
        # the caller wants the picture itself: one that was called off, because nobody waited, is drawn anew
        state = connection.execute(select(JOBS.c.state).where(JOBS.c.id == first.job_id)).scalar_one()
        if state in ACTIVE:
            raise IdempotencyRunning(
                "the first request with this Idempotency-Key is still running; try again when it has ended",
                field="Idempotency-Key",
            )
        if state == State.CANCELLED:
            return None
    return Accepted(first.job_id, first.response)


def _check_limits(connection: Connection, key: AnyRow, new: NewJob, limits: QueueLimits) -> None:
    active, reserved = connection.execute(_ACTIVE, {"this": new.key_id}).one()
    limit = key.active_limit if key.active_limit is not None else limits.active_limit
    if active >= limit:
        raise TooManyJobs(f"{active} jobs of this key are active and {limit} are allowed; wait for one to end")
    if key.credits_milli is not None and key.credits_milli - int(reserved) < new.cost_milli:
        raise InsufficientCredits("Insufficient credits")


def _insert(connection: Connection, key: AnyRow, new: NewJob, limits: QueueLimits, now: float) -> None:
    start = max(virtual_time(connection), key.fair_finish)
    values: dict[str, Any] = {
        "id": new.id,
        "key_id": new.key_id,
        "route": new.route,
        "state": State.QUEUED.value,
        "task": new.task.to_json(),
        "created_at": now,
        "available_at": now,
        "priority": key.priority,
        "work": new.work,
        "fair_start": start,
        "rank": start - key.priority * limits.priority_work,
        "attempt": 0,
        "failures": 0,
        "deaths": 0,
        "cancel_requested": False,
        "stage": "",
        "progress": 0.0,
        "cost_milli": new.cost_milli,
        "input_px": new.input_px,
        "output_px": new.output_px,
        "webhook_url": new.webhook_url,
        "webhook_secret": new.webhook_secret,
        "base_url": new.base_url,
        "wanted_until": now + new.wanted_s if new.wanted_s is not None else None,
        "traceparent": new.traceparent,
    }
    if new.outcome is not None:
        values.update(final_values(new.outcome, now))
    ended = connection.execute(_INSERT, values).one()
    digests = sorted(new.task.digests)
    if digests:
        connection.execute(insert(BLOBS), [{"job_id": new.id, "digest": digest} for digest in digests])
    if new.outcome is not None:
        settle(connection, ended, new.outcome, now)
    else:
        connection.execute(_FINISH, {"this": new.key_id, "fair_finish": start + new.work})
    if new.idempotency is not None:
        connection.execute(_FORGET, {"this": new.key_id, "given": new.idempotency.token})
        connection.execute(
            insert(IDEMPOTENCY),
            {
                "key_id": new.key_id,
                "token": new.idempotency.token,
                "body_hash": new.idempotency.body_hash,
                "job_id": new.id,
                "response": new.idempotency.response,
                "created_at": now,
            },
        )


def virtual_time(connection: Connection) -> float:
    """How far the work has got: where the latest running job started, else the next waiting one, else all that was."""
    return float(connection.execute(_VIRTUAL_TIME).scalar_one())


def give_work_back(connection: Connection, key_id: str) -> None:
    """After a waiting job was cancelled: its key's next job need not wait for work that nobody did."""
    end = select(func.max(JOBS.c.fair_start + JOBS.c.work)).where(
        and_(JOBS.c.key_id == key_id, JOBS.c.state.in_(ACTIVE))
    )
    finish = connection.execute(end).scalar()
    connection.execute(
        update(KEYS)
        .where(KEYS.c.id == key_id)
        .values(fair_finish=float(finish) if finish is not None else virtual_time(connection))
    )
