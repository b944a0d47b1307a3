"""The end of a job: its state, its metering row, its charge and its outgoing webhook, all in the caller's transaction."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, insert, text, update

from licht.service.database.connect import AnyRow
from licht.service.database.tables import BLOBS, JOBS, KEYS, METERING, WEBHOOKS
from licht.service.queue import tallies
from licht.service.queue.records import Outcome, State

ENDED: Final = (
    JOBS.c.id,
    JOBS.c.key_id,
    JOBS.c.route,
    JOBS.c.created_at,
    JOBS.c.started_at,
    JOBS.c.cost_milli,
    JOBS.c.input_px,
    JOBS.c.output_px,
    JOBS.c.webhook_url,
    JOBS.c.webhook_secret,
)
"""The columns that `settle` needs of the row that has just ended."""

ENDED_CHANNEL: Final = "licht_ended"
"""Where PostgreSQL announces that a job has ended."""


_CHARGE: Final = (
    update(KEYS)
    .where(KEYS.c.id == bindparam("this"), KEYS.c.credits_milli.is_not(None))
    .values(credits_milli=KEYS.c.credits_milli - bindparam("price"))
)


def final_values(outcome: Outcome, now: float) -> dict[str, Any]:
    """The columns of a job that has ended."""
    values: dict[str, Any] = {
        "state": outcome.state.value,
        "finished_at": now,
        "owner": None,
        "lease_until": None,
        "error_code": outcome.error_code,
        "error": outcome.error,
        "result": json.dumps(outcome.result) if outcome.result is not None else None,
    }
    if outcome.state is State.READY:
        values["progress"] = 1.0
    return values


def settle(connection: Connection, ended: AnyRow, outcome: Outcome, now: float) -> None:
    """Meter, charge and announce a job whose row has just been given its final state."""
    ready = outcome.state is State.READY
    # moderated, failed and cancelled jobs are free
    cost_milli = ended.cost_milli if ready else 0
    started = ended.started_at if ended.started_at is not None else now
    connection.execute(
        insert(METERING),
        {
            "job_id": ended.id,
            "key_id": ended.key_id,
            "day": datetime.fromtimestamp(now, UTC).date().isoformat(),
            "at": now,
            "route": ended.route,
            "state": outcome.state.value,
            "pictures": int(ready),
            "input_px": ended.input_px,
            "output_px": ended.output_px if ready else 0,
            "cost_milli": cost_milli,
            "queue_s": max(0.0, started - ended.created_at),
            "run_s": max(0.0, now - started),
            "steps": outcome.steps,
        },
    )
    tallies.of_job(ended, outcome, now, cost_milli).write(connection)
    if cost_milli:
        connection.execute(_CHARGE, {"this": ended.key_id, "price": cost_milli})
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": ENDED_CHANNEL})
    if outcome.blobs:
        connection.execute(
            insert(BLOBS), [{"job_id": ended.id, "digest": digest} for digest in sorted(set(outcome.blobs))]
        )
    if ended.webhook_url is not None:
        connection.execute(
            insert(WEBHOOKS),
            {
                "id": f"msg_{uuid.uuid4().hex}",
                "job_id": ended.id,
                "url": ended.webhook_url,
                "secret": ended.webhook_secret,
                "state": "pending",
                "attempts": 0,
                "next_at": now,
                "created_at": now,
            },
        )
