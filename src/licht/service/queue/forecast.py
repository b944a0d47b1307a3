"""How long a job will take and wait, from what this service has measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import func, select

from licht.service.database.connect import Database
from licht.service.database.tables import JOBS, KEYS, METERING
from licht.service.queue.records import QueueLimits, State
from licht.service.queue.register import About
from licht.service.queue.submit import virtual_time

_LATEST: Final = 50
_SPREAD: Final = 0.05
"""Jobs whose work differs by less than this share tell nothing about what a job of another size takes."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A job of W megapixel-steps takes `fixed_s` + W x `per_work_s` seconds; learnt from `jobs` jobs."""

    fixed_s: float
    per_work_s: float
    jobs: int

    def seconds(self, work: float) -> float:
        """Of one job."""
        return self.fixed_s + work * self.per_work_s


def fit(cases: Sequence[tuple[float, float]]) -> Rate | None:
    """The line through (work, seconds) with the least squares, both its numbers at least 0; None without cases."""
    if not cases:
        return None
    count = len(cases)
    mean_work, mean_s = sum(work for work, _ in cases) / count, sum(s for _, s in cases) / count
    variance = sum((work - mean_work) ** 2 for work, _ in cases) / count
    if mean_work <= 0 or variance < (_SPREAD * mean_work) ** 2:
        return Rate(0.0, mean_s / max(mean_work, 1e-9), count)
    slope = sum((work - mean_work) * (s - mean_s) for work, s in cases) / count / variance
    slope = max(slope, 0.0)
    fixed_s = mean_s - slope * mean_work
    return Rate(fixed_s, slope, count) if fixed_s >= 0 else Rate(0.0, mean_s / mean_work, count)


class Forecast:
    """Looks into the queue and into what was metered."""

    def __init__(self, database: Database, limits: QueueLimits) -> None:
        """Work on `database`."""
        self._database = database
        self._limits = limits

    def rate(self, about: About, now: float) -> Rate:
        """From the latest pictures of today and yesterday, else from those that a worker drew when it started."""
        since = datetime.fromtimestamp(now - 86400, UTC).date().isoformat()
        pixels = METERING.c.input_px + METERING.c.output_px
        query = (
            select(pixels, METERING.c.steps, METERING.c.run_s)
            .where(METERING.c.day >= since, METERING.c.state == State.READY.value, METERING.c.steps > 0)
            .order_by(METERING.c.at.desc())
            .limit(_LATEST)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        measured = fit([(row[0] / 1e6 * row[1], row[2]) for row in rows])
        return measured or Rate(about.fixed_s, about.step_s / (about.width * about.height / 1e6), 0)

    def wait(self, key_id: str, rate: Rate, workers: int) -> tuple[float, int]:
        """(seconds, jobs) that stand before a new job of this key."""
        with self._database.read() as connection:
            key = connection.execute(select(KEYS).where(KEYS.c.id == key_id)).one()
            rank = max(virtual_time(connection), key.fair_finish) - key.priority * self._limits.priority_work
            queued = select(func.count(), func.coalesce(func.sum(JOBS.c.work), 0.0)).where(
                JOBS.c.state == State.QUEUED.value, JOBS.c.rank <= rank
            )
            count, work = connection.execute(queued).one()
            running = select(JOBS.c.work, JOBS.c.progress).where(JOBS.c.state == State.RUNNING.value)
            left_s = sum(rate.seconds(row.work) * (1 - row.progress) for row in connection.execute(running))
        return (left_s + count * rate.fixed_s + work * rate.per_work_s) / max(workers, 1), int(count)
