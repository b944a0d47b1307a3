"""Handing jobs to workers: a claim is a lease with a fencing token, and only its holder can write."""

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, Update, bindparam, select, update

from licht.core.errors import LeaseLost
from licht.service.database.connect import AnyRow, Database
from licht.service.database.tables import JOBS
from licht.service.queue.records import Claim, Outcome, QueueLimits, State, Task
from licht.service.queue.settle import ENDED, final_values, settle

# Built once: putting a statement together takes SQLAlchemy longer than SQLite takes to run it.
_WAITING: Final = (
    select(JOBS.c.id).where(JOBS.c.state == State.QUEUED.value, JOBS.c.available_at <= bindparam("now")).limit(1)
)
_FIRST: Final = _WAITING.order_by(JOBS.c.rank, JOBS.c.created_at).with_for_update(skip_locked=True)
_TAKE: Final = (
    update(JOBS)
    .where(JOBS.c.id == bindparam("this"))
    .values(
        state=State.RUNNING.value,
        owner=bindparam("owner"),
        attempt=JOBS.c.attempt + 1,
        lease_until=bindparam("lease_until"),
        started_at=bindparam("now"),
        stage="starting",
        progress=0.0,
    )
    .returning(JOBS.c.key_id, JOBS.c.route, JOBS.c.attempt, JOBS.c.task, JOBS.c.created_at, JOBS.c.traceparent)
)

_LOOK: Final = select(JOBS.c.cancel_requested).where(
    JOBS.c.id == bindparam("this"),
    JOBS.c.attempt == bindparam("attempt"),
    JOBS.c.owner == bindparam("owner"),
    JOBS.c.state == State.RUNNING.value,
)


class Leases:
    """The workers' side of the queue."""

    def __init__(self, database: Database, limits: QueueLimits, clock: Callable[[], float]) -> None:
        """Work on `database`; `clock` gives seconds since 1970."""
        self._database = database
        self._limits = limits
        self._clock = clock

    def claim(self, owner: str) -> Claim | None:
        """The next job in the fair order, or None. Two workers never get the same one."""
        now = self._clock()
        with self._database.read() as connection:
            # an idle worker looks often, and must not keep SQLite's one writer waiting
            if connection.execute(_WAITING, {"now": now}).one_or_none() is None:
                return None
        with self._database.touch() as connection:
            chosen = connection.execute(_FIRST, {"now": now}).scalar()
            if chosen is None:
                return None
            until = now + self._limits.lease_s
            row = connection.execute(_TAKE, {"this": chosen, "owner": owner, "lease_until": until, "now": now}).one()
        return Claim(
            job_id=chosen,
            key_id=row.key_id,
            route=row.route,
            attempt=row.attempt,
            owner=owner,
            task=Task.from_json(row.task),
            created_at=row.created_at,
            claimed_at=now,
            traceparent=row.traceparent,
        )

    def keep(self, claim: Claim, stage: str | None = None, progress: float | None = None) -> bool:
        """Renew the lease and note where the work stands; True if the job is to be cancelled. Raises `LeaseLost`."""
        values: dict[str, Any] = {"lease_until": self._clock() + self._limits.lease_s}
        if stage is not None:
            values["stage"] = stage
        if progress is not None:
            values["progress"] = min(max(progress, 0.0), 1.0)
        with self._database.touch() as connection:
            row = connection.execute(_held(claim).values(values).returning(JOBS.c.cancel_requested)).one_or_none()
        if row is None:
            raise _lost(claim)
        return bool(row.cancel_requested)

    def wanted(self, claim: Claim) -> bool:
        """Whether the job is still to be drawn; looks only, and so keeps nobody waiting. Raises `LeaseLost`."""
        with self._database.read() as connection:
            row = connection.execute(_LOOK, {"this": claim.job_id, "owner": claim.owner, "attempt": claim.attempt})
            cancelled = row.scalar()
        if cancelled is None:
            raise _lost(claim)
        return not cancelled

    def finish(self, claim: Claim, outcome: Outcome) -> None:
        """End the job: result, metering, charge and webhook in one transaction. Raises `LeaseLost`."""
        now = self._clock()
        with self._database.write() as connection:
            self._end(connection, claim, outcome, now)

    def fail_attempt(self, claim: Claim, code: str, message: str) -> State:
        """Note an attempt that went wrong through no fault of the request; after too many, the job is a dead letter.

        Returns where the job stands now. Raises `LeaseLost`.
        """
        now = self._clock()
        with self._database.write() as connection:
            row = connection.execute(_held(claim).values(failures=JOBS.c.failures + 1).returning(JOBS.c.failures))
            failures = row.scalar()
            if failures is None:
                raise _lost(claim)
            if failures >= self._limits.max_attempts:
                outcome = Outcome(State.FAILED, error_code=code, error=message)
                self._end(connection, claim, outcome, now, dead_letter="attempts")
                return State.FAILED
            delay_s = self._limits.retry_delay_s * 2 ** (failures - 1)
            connection.execute(_held(claim).values(_back_in_queue(now + delay_s)))
        return State.QUEUED

    def hand_back(self, claim: Claim) -> None:
        """Put the job back at its place, because this worker has to stop. It counts as nothing. Raises `LeaseLost`."""
        with self._database.write() as connection:
            row = connection.execute(_held(claim).values(_back_in_queue(self._clock())).returning(JOBS.c.id))
            if row.one_or_none() is None:
                raise _lost(claim)

    def reap(self, owner: str | None = None) -> int:
        """Take jobs away from workers that are gone: leases that ran out, or all those of `owner`. Returns how many.

        A job that has lost several workers is poison: it fails instead of killing the next one.
        """
        now = self._clock()
        gone = JOBS.c.lease_until < now if owner is None else JOBS.c.owner == owner
        lost = (
            select(*ENDED, JOBS.c.deaths, JOBS.c.cancel_requested)
            .where(JOBS.c.state == State.RUNNING.value, gone)
            .limit(1000)
        )
        with self._database.read() as connection:
            if connection.execute(lost.limit(1)).one_or_none() is None:
                return 0
        with self._database.write() as connection:
            # rows that are locked are left to the other reapers; but a named worker's jobs are taken once and for all
            rows = connection.execute(lost.with_for_update(skip_locked=owner is None)).all()
            for row in rows:
                self._take_away(connection, row, now)
        return len(rows)

    def _take_away(self, connection: Connection, row: AnyRow, now: float) -> None:
        deaths = row.deaths + 1
        this = update(JOBS).where(JOBS.c.id == row.id)
        if row.cancel_requested:
            outcome, dead_letter = Outcome(State.CANCELLED), None
        elif deaths >= self._limits.max_deaths:
            message = f"{deaths} workers died while they drew this picture"
            outcome, dead_letter = Outcome(State.FAILED, error_code="worker_died", error=message), "poison"
        else:
            connection.execute(this.values(deaths=deaths, **_back_in_queue(now)))
            return
        connection.execute(this.values(deaths=deaths, dead_letter=dead_letter, **final_values(outcome, now)))
        settle(connection, row, outcome, now)

    @staticmethod
    def _end(
        connection: Connection, claim: Claim, outcome: Outcome, now: float, dead_letter: str | None = None
    ) -> None:
        statement = _held(claim).values(dead_letter=dead_letter, **final_values(outcome, now))
        ended = connection.execute(statement.returning(*ENDED)).one_or_none()
        if ended is None:
            raise _lost(claim)
        settle(connection, ended, outcome, now)


def _held(claim: Claim) -> Update:
    """The job's row, as long as this claim is the one that counts."""
    return update(JOBS).where(
        JOBS.c.id == claim.job_id,
        JOBS.c.attempt == claim.attempt,
        JOBS.c.owner == claim.owner,
        JOBS.c.state == State.RUNNING.value,
    )


def _back_in_queue(available_at: float) -> dict[str, Any]:
    return {
        "state": State.QUEUED.value,
        "owner": None,
        "lease_until": None,
        "available_at": available_at,
        "stage": "",
        "progress": 0.0,
    }


def _lost(claim: Claim) -> LeaseLost:
    return LeaseLost(f"job {claim.job_id} was given to another worker after attempt {claim.attempt}; drop the result")
