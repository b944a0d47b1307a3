"""Sums for the metrics, added where a job ends and in the same transaction: exact over processes, restarts and purges.

One row a series. Of a histogram each bucket counts its own cases only; whoever shows it adds them up.
"""

import bisect
import json
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Insert, select
from sqlalchemy.dialects import postgresql, sqlite

from licht.service.database.connect import AnyRow, Database
from licht.service.database.tables import TALLIES
from licht.service.queue.records import Outcome, State

SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
RATES: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0)
"""Upper ends of buckets; above the last one there is one more."""
HISTOGRAMS: Final[Mapping[str, tuple[float, ...]]] = {
    "licht_queue_seconds": SECONDS,
    "licht_run_seconds": SECONDS,
    "licht_steps_per_second": RATES,
}
BUCKET: Final = "_bucket"
SUM: Final = "_sum"
REST: Final = "+Inf"


def _adding(statement: postgresql.Insert | sqlite.Insert) -> Insert:
    more = {"value": TALLIES.c.value + statement.excluded.value}
    return statement.on_conflict_do_update(index_elements=[TALLIES.c.name, TALLIES.c.labels], set_=more)


_ADD: Final = {"postgresql": _adding(postgresql.insert(TALLIES)), "sqlite": _adding(sqlite.insert(TALLIES))}

Series = tuple[str, tuple[tuple[str, str], ...]]
"""A name, and its labels as pairs in the order of their names."""


class Tally:
    """What one transaction adds."""

    def __init__(self) -> None:
        self._values: dict[Series, float] = {}

    def add(self, name: str, value: float, **labels: str) -> None:
        """Add to a counter."""
        series = (name, tuple(sorted(labels.items())))
        self._values[series] = self._values.get(series, 0.0) + value

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a case to one of `HISTOGRAMS`."""
        ends = HISTOGRAMS[name]
        at = bisect.bisect_left(ends, value)
        self.add(name + BUCKET, 1.0, **labels, le=str(ends[at]) if at < len(ends) else REST)
        self.add(name + SUM, value, **labels)

    def write(self, connection: Connection) -> None:
        """Put it into the rows; always in one order, so that two transactions cannot wait for each other."""
        if not self._values:
            return
        rows = [
            {"name": name, "labels": json.dumps(dict(labels)), "value": value}
            for (name, labels), value in sorted(self._values.items())
        ]
        connection.execute(_ADD[connection.dialect.name], rows)


def of_job(ended: AnyRow, outcome: Outcome, now: float, cost_milli: int) -> Tally:
    """What a job that has just ended adds. Times in seconds, `ended` has the columns of `settle.ENDED`."""
    tally, route, ready = Tally(), str(ended.route), outcome.state is State.READY
    tally.add("licht_jobs_ended", 1.0, route=route, state=outcome.state.value)
    tally.add("licht_input_megapixels", ended.input_px / 1e6, route=route)
    if ended.started_at is not None:
        run_s = max(0.0, now - ended.started_at)
        tally.observe("licht_queue_seconds", max(0.0, ended.started_at - ended.created_at), route=route)
        tally.observe("licht_run_seconds", run_s, route=route, state=outcome.state.value)
    if ready:
        tally.add("licht_output_megapixels", ended.output_px / 1e6, route=route)
        tally.add("licht_credits", cost_milli / 1000, route=route)
        tally.add("licht_steps", float(outcome.steps), route=route)
    for stage, took_s in outcome.stage_s.items():
        tally.add("licht_stage_seconds", took_s, stage=stage)
        tally.add("licht_stages", 1.0, stage=stage)
    denoise_s = outcome.stage_s.get("denoise", 0.0)
    if ready and denoise_s > 0:
        tally.observe("licht_steps_per_second", outcome.steps / denoise_s, route=route)
    for cache, (hits, misses) in outcome.caches.items():
        tally.add("licht_cache_hits", float(hits), cache=cache)
        tally.add("licht_cache_misses", float(misses), cache=cache)
    return tally


def read(database: Database) -> list[tuple[str, dict[str, str], float]]:
    """Every series: name, labels, value."""
    with database.read() as connection:
        rows = connection.execute(select(TALLIES).order_by(TALLIES.c.name, TALLIES.c.labels)).all()
    return [(row.name, _labels(row.labels), float(row.value)) for row in rows]


def _labels(text: str) -> dict[str, str]:
    labels: dict[str, Any] = json.loads(text)
    return {name: str(value) for name, value in labels.items()}
