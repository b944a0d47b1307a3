"""The API's side of the queue: submit, look, cancel, delete."""

import json
import time
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, delete, func, select, update

from licht.core.errors import UnknownJob
from licht.service.database.connect import AnyRow, Database
from licht.service.database.files import needed_files
from licht.service.database.tables import ACTIVE, BLOBS, FAVOURITES, IDEMPOTENCY, JOBS, PREVIEWS, WEBHOOKS
from licht.service.queue import submit as submitting
from licht.service.queue.leases import Leases
from licht.service.queue.records import Accepted, Depth, Idempotency, Job, NewJob, Outcome, QueueLimits, State, Task
from licht.service.queue.settle import ENDED, final_values, settle


class JobStore:
    """All jobs of one database."""

    def __init__(
        self, database: Database, limits: QueueLimits | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """Work on `database`; `clock` gives seconds since 1970."""
        self.database = database
        self.limits = limits or QueueLimits()
        self._clock = clock
        self.leases = Leases(database, self.limits, clock)

    def submit(self, *jobs: NewJob, beside: Callable[[Connection], None] | None = None) -> Accepted:
        """Accept jobs, all or none, see `licht.service.queue.submit.submit`."""
        return submitting.submit(self.database, self.limits, self._clock, jobs, beside)

    def replay(self, key_id: str, idempotency: Idempotency) -> Accepted | None:
        """What a token stands for already, if anything. Raises `IdempotencyConflict`."""
        with self.database.read() as connection:
            return submitting.replay(connection, key_id, idempotency)

    def get(self, job_id: str, key_id: str | None = None) -> Job:
        """The job, if it is there (and belongs to the key). Raises `UnknownJob`."""
        query = select(JOBS).where(JOBS.c.id == job_id)
        if key_id is not None:
            query = query.where(JOBS.c.key_id == key_id)
        with self.database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise UnknownJob("there is no such job; check the id", field="id")
        return job_of(row)

    def position(self, job: Job) -> int | None:
        """How many waiting jobs come before this one; None if it does not wait."""
        if job.state is not State.QUEUED:
            return None
        own = select(JOBS.c.rank, JOBS.c.created_at).where(JOBS.c.id == job.id)
        with self.database.read() as connection:
            row = connection.execute(own).one_or_none()
            if row is None:
                return None
            before = (JOBS.c.rank < row.rank) | ((JOBS.c.rank == row.rank) & (JOBS.c.created_at < row.created_at))
            waiting = select(func.count()).where(JOBS.c.state == State.QUEUED.value, before)
            return int(connection.execute(waiting).scalar_one())

    def recent(self, key_id: str, states: Sequence[State] = tuple(State), limit: int = 100) -> list[Job]:
        """The latest jobs of a key, newest first."""
        query = (
            select(JOBS)
            .where(JOBS.c.key_id == key_id, JOBS.c.state.in_([state.value for state in states]))
            .order_by(JOBS.c.created_at.desc())
            .limit(limit)
        )
        with self.database.read() as connection:
            return [job_of(row) for row in connection.execute(query)]

    def cancel(self, job_id: str, key_id: str | None = None) -> Job:
        """End a waiting job, or ask the worker of a running one to stop. Raises `UnknownJob`.

        A job that has ended stays as it is.
        """
        self.get(job_id, key_id)
        now = self._clock()
        with self.database.write() as connection:
            outcome = Outcome(State.CANCELLED)
            ended = connection.execute(
                update(JOBS)
                .where(JOBS.c.id == job_id, JOBS.c.state == State.QUEUED.value)
                .values(cancel_requested=True, **final_values(outcome, now))
                .returning(*ENDED)
            ).one_or_none()
            if ended is not None:
                settle(connection, ended, outcome, now)
                submitting.give_work_back(connection, ended.key_id)
            else:
                running = JOBS.c.state == State.RUNNING.value
                connection.execute(update(JOBS).where(JOBS.c.id == job_id, running).values(cancel_requested=True))
        return self.get(job_id)

    def want(self, job_id: str, for_s: float) -> None:
        """The caller of a job made with `wanted_s` is still there, and wants it for another `for_s`."""
        until = self._clock() + for_s
        waited = (JOBS.c.id == job_id, JOBS.c.state.in_(ACTIVE), JOBS.c.wanted_until.is_not(None))
        with self.database.touch() as connection:
            connection.execute(update(JOBS).where(*waited).values(wanted_until=until))

    def cancel_unwanted(self) -> int:
        """Cancel jobs whose callers are gone, even if the process that they called is; returns how many."""
        unwanted = select(JOBS.c.id).where(
            JOBS.c.wanted_until < self._clock(), JOBS.c.state.in_(ACTIVE), JOBS.c.cancel_requested.is_(False)
        )
        with self.database.read() as connection:
            ids = list(connection.execute(unwanted).scalars())
        for job_id in ids:
            self.cancel(job_id)
        return len(ids)

    def depth(self) -> Depth:
        """How full the queue is, over all keys."""
        by_state = select(JOBS.c.state, func.count()).group_by(JOBS.c.state)
        oldest = select(func.min(JOBS.c.created_at)).where(JOBS.c.state == State.QUEUED.value)
        dead = select(func.count()).where(JOBS.c.state == State.FAILED.value, JOBS.c.dead_letter.is_not(None))
        with self.database.read() as connection:
            states = {name: int(count) for name, count in connection.execute(by_state)}
            first = connection.execute(oldest).scalar()
            letters = int(connection.execute(dead).scalar_one())
        waited_s = max(0.0, self._clock() - first) if first is not None else 0.0
        return Depth({state.value: states.get(state.value, 0) for state in State}, waited_s, letters)

    def dead_letters(self, limit: int = 100) -> list[Job]:
        """Jobs that were given up, newest first."""
        query = select(JOBS).where(JOBS.c.dead_letter.is_not(None)).order_by(JOBS.c.finished_at.desc()).limit(limit)
        with self.database.read() as connection:
            return [job_of(row) for row in connection.execute(query)]

    def delete(self, job_id: str, key_id: str | None = None) -> list[str]:
        """Remove a job that has ended; returns the digests of stored files that no other job needs.

        Its metering row stays: what was used was used. Raises `UnknownJob`, also for a job that is still active.
        """
        if not self.get(job_id, key_id).state.final:
            raise UnknownJob("the job is still active; cancel it first", field="id")
        return self.remove([job_id])

    def oldest(self, limit: int, ended_before: float | None = None) -> list[str]:
        """Jobs that may go: those that ended first, favourites last. With a time, those before it, without favourites.

        One whose webhook is still to be sent stays.
        """
        favourite = JOBS.c.id.in_(select(FAVOURITES.c.job_id))
        query = select(JOBS.c.id).where(
            JOBS.c.state.not_in(ACTIVE),
            JOBS.c.id.not_in(select(WEBHOOKS.c.job_id).where(WEBHOOKS.c.state == "pending")),
        )
        if ended_before is not None:
            query = query.where(JOBS.c.finished_at < ended_before, ~favourite)
        with self.database.read() as connection:
            return list(connection.execute(query.order_by(favourite, JOBS.c.finished_at).limit(limit)).scalars())

    def remove(self, job_ids: Sequence[str]) -> list[str]:
        """Remove jobs that have ended, with all that belongs to them; returns the files that nothing needs any more.

        One that is active, or gone, is left alone. Their metering rows stay.
        """
        with self.database.write() as connection:
            over = JOBS.c.id.in_(job_ids) & JOBS.c.state.not_in(ACTIVE)
            ids = list(connection.execute(select(JOBS.c.id).where(over).with_for_update()).scalars())
            files = set(connection.execute(select(BLOBS.c.digest).where(BLOBS.c.job_id.in_(ids))).scalars())
            for table in (BLOBS, IDEMPOTENCY, WEBHOOKS, PREVIEWS, FAVOURITES):
                connection.execute(delete(table).where(table.c.job_id.in_(ids)))
            connection.execute(delete(JOBS).where(JOBS.c.id.in_(ids)))
            return sorted(files - needed_files(connection, files))


def job_of(row: AnyRow) -> Job:
    """A row of the table of jobs."""
    return Job(
        id=row.id,
        key_id=row.key_id,
        route=row.route,
        state=State(row.state),
        task=Task.from_json(row.task),
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        attempt=row.attempt,
        failures=row.failures,
        deaths=row.deaths,
        dead_letter=row.dead_letter,
        cancel_requested=row.cancel_requested,
        stage=row.stage,
        progress=row.progress,
        result=json.loads(row.result) if row.result is not None else None,
        error_code=row.error_code,
        error=row.error,
        cost_milli=row.cost_milli,
        input_px=row.input_px,
        output_px=row.output_px,
        webhook_url=row.webhook_url,
        base_url=row.base_url,
    )
