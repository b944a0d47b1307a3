"""Events for the outside: signed, sent at least once under one id, repeated with growing pauses across restarts.

Standard Webhooks headers go with every event. BFL's own form is not publicly settled (three accounts disagree), so
both of its headers and a superset of its bodies are sent too.
"""

import base64
import binascii
import hashlib
import hmac
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import func, select, update

from licht.service.database.connect import AnyRow, Database
from licht.service.database.tables import JOBS, WEBHOOKS
from licht.service.fetch import Answer

_PREFIX: Final = "whsec_"
_GONE: Final = 410
_JITTER: Final = 0.1
_WORDS: Final = {"ready": "SUCCESS", "failed": "FAILED", "moderated": "FAILED", "cancelled": "FAILED"}
_BFL: Final = {"ready": "Ready", "failed": "Error", "moderated": "Request Moderated", "cancelled": "Error"}
_TOLD: Final = (
    *(WEBHOOKS.c.id, WEBHOOKS.c.url, WEBHOOKS.c.secret, WEBHOOKS.c.attempts, WEBHOOKS.c.job_id),
    *(JOBS.c.state, JOBS.c.task, JOBS.c.result, JOBS.c.error_code, JOBS.c.error),
    *(JOBS.c.started_at, JOBS.c.finished_at, JOBS.c.base_url),
)


@dataclass(frozen=True, slots=True)
class Event:
    """One event that is due: where it goes, and the job that it tells about. Times in seconds since 1970."""

    id: str
    url: str
    secret: str | None
    attempts: int
    job_id: str
    state: str
    prompt: str
    result: Mapping[str, Any] | None
    error_code: str | None
    error: str | None
    started_at: float
    finished_at: float
    base_url: str


class Outbox:
    """The events of one database."""

    def __init__(
        self, database: Database, schedule_s: tuple[float, ...], hold_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        """`schedule_s` are the pauses before each attempt; an event in the hands of a sender is left alone `hold_s`."""
        self._database = database
        self._schedule_s = schedule_s
        self._hold_s = hold_s
        self._clock = clock

    def due(self, limit: int = 20) -> list[Event]:
        """Take events that are to be sent now; nobody else gets them meanwhile. Attempts are counted when taken."""
        now = self._clock()
        ready = (WEBHOOKS.c.state == "pending", WEBHOOKS.c.next_at <= now)
        with self._database.read() as connection:
            if connection.execute(select(WEBHOOKS.c.id).where(*ready).limit(1)).one_or_none() is None:
                return []
        chosen = select(WEBHOOKS.c.id).where(*ready).order_by(WEBHOOKS.c.next_at).limit(limit)
        with self._database.write() as connection:
            ids = list(connection.execute(chosen.with_for_update(skip_locked=True)).scalars())
            mine = WEBHOOKS.c.id.in_(ids)
            connection.execute(
                update(WEBHOOKS).where(mine).values(attempts=WEBHOOKS.c.attempts + 1, next_at=now + self._hold_s)
            )
            rows = connection.execute(select(*_TOLD).join_from(WEBHOOKS, JOBS).where(mine)).all()
        return [_event(row) for row in rows]

    def report(self, event: Event, answer: Answer | None) -> str:
        """Note what became of an attempt; returns where the event stands: delivered, pending or given_up."""
        values: dict[str, Any] = {"last_status": "no answer" if answer is None else str(answer.status)}
        if answer is not None and 200 <= answer.status < 300:
            values["state"] = "delivered"
        elif (answer is not None and answer.status == _GONE) or event.attempts >= len(self._schedule_s):
            values["state"] = "given_up"
        else:
            values["state"] = "pending"
            pause_s = self._schedule_s[event.attempts] * (1 + random.uniform(0, _JITTER))
            if answer is not None and answer.retry_after_s is not None:
                pause_s = max(pause_s, min(answer.retry_after_s, self._schedule_s[-1]))
            values["next_at"] = self._clock() + pause_s
        with self._database.write() as connection:
            connection.execute(update(WEBHOOKS).where(WEBHOOKS.c.id == event.id).values(values))
        return str(values["state"])

    def counts(self) -> dict[str, int]:
        """How many events stand where."""
        query = select(WEBHOOKS.c.state, func.count()).group_by(WEBHOOKS.c.state)
        with self._database.read() as connection:
            return {state: int(count) for state, count in connection.execute(query)}


def body(event: Event, sample: str | None, statuses: str) -> bytes:
    """What is sent: BFL's fields under both of their names. `sample` is the signed link; `statuses` words or bfl."""
    vocabulary = _WORDS if statuses == "words" else _BFL
    status = vocabulary[event.state]
    if statuses == "bfl" and event.error_code == "content_moderated":
        status = "Content Moderated"
    told: dict[str, Any] = {
        "id": event.job_id,
        "task_id": event.job_id,
        "status": status,
        "progress": 1.0 if event.state == "ready" else 0.0,
        "timestamp": datetime.fromtimestamp(event.finished_at, UTC).isoformat(),
    }
    if event.state == "ready" and event.result is not None:
        told["result"] = {
            "sample": sample,
            "prompt": event.prompt,
            "seed": event.result["seed"],
            "start_time": event.started_at,
            "end_time": event.finished_at,
            "duration": event.finished_at - event.started_at,
        }
    else:
        told["error"] = event.error_code or event.state
        told["message"] = event.error or event.state
        told["result"] = None
    return json.dumps(told, separators=(",", ":")).encode()


def headers(event_id: str, secret: str | None, content: bytes, at: int) -> dict[str, str]:
    """The headers of one attempt at second `at`; without a secret nothing is signed."""
    made = {
        "Content-Type": "application/json",
        "User-Agent": "licht-webhooks",
        "webhook-id": event_id,
        "webhook-timestamp": str(at),
    }
    if secret is not None:
        made["webhook-signature"] = standard_signature(secret, event_id, at, content)
        made["X-BFL-Signature"] = f"sha256={hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()}"
        made["X-Webhook-Secret"] = secret
    return made


def standard_signature(secret: str, event_id: str, at: int, content: bytes) -> str:
    """`v1,` and base64 of HMAC-SHA-256 over id, timestamp and body (Standard Webhooks 1.0).

    A `whsec_` secret is base64; any other text is used as it is.
    """
    signed = f"{event_id}.{at}.".encode() + content
    digest = hmac.new(_key_of(secret), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _key_of(secret: str) -> bytes:
    if secret.startswith(_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            return secret.encode()
    return secret.encode()


def _event(row: AnyRow) -> Event:
    started = row.started_at if row.started_at is not None else row.finished_at
    return Event(
        id=row.id,
        url=row.url,
        secret=row.secret,
        attempts=row.attempts,
        job_id=row.job_id,
        state=row.state,
        prompt=json.loads(row.task)["prompt"],
        result=json.loads(row.result) if row.result is not None else None,
        error_code=row.error_code,
        error=row.error,
        started_at=started,
        finished_at=row.finished_at,
        base_url=row.base_url,
    )
