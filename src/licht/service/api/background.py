"""What an API process does on the side: sends webhooks, takes jobs from dead workers, removes what has expired."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from licht.core.errors import LichtError
from licht.service import webhooks
from licht.service.api.parts import Parts
from licht.service.retention import Retention
from licht.service.storage import GRACE_S
from licht.service.webhooks import Event

_LOG: Final = logging.getLogger(__name__)
_WEBHOOK_LOOK_S: Final = 0.5
_REAP_S: Final = 1.0
_PURGE_S: Final = 600.0
_CHECKPOINT_S: Final = 2.0
_SILENT_WORKER_S: Final = 3600.0


async def send_webhooks(parts: Parts) -> int:
    """Send what is due; returns how many were tried."""
    events = await asyncio.to_thread(parts.outbox.due)
    await asyncio.gather(*(_send(parts, event) for event in events))
    return len(events)


async def _send(parts: Parts, event: Event) -> None:
    sample = parts.result_link(event.base_url, event.job_id) if event.state == "ready" else None
    content = webhooks.body(event, sample, parts.settings.webhooks.statuses)
    headers = webhooks.headers(event.id, event.secret, content, int(parts.clock()))
    answer = await parts.fetcher.post(event.url, content, headers, parts.settings.webhooks.timeout_s)
    state = await asyncio.to_thread(parts.outbox.report, event, answer)
    status = answer.status if answer is not None else None
    _LOG.info("webhook", extra={"job": event.job_id, "event_id": event.id, "status": status, "state": state})


async def reap(parts: Parts) -> None:
    """Take jobs from workers that are gone, end those whose callers are, and let go of what was deleted."""
    await asyncio.to_thread(parts.store.cancel_unwanted)
    await asyncio.to_thread(parts.looks.reap)
    for digest in await asyncio.to_thread(parts.uploads.forget):
        await asyncio.to_thread(parts.storage.delete, digest)
    count = await asyncio.to_thread(parts.store.leases.reap)
    if count:
        _LOG.warning("took jobs from dead workers", extra={"jobs": count})
    for row in await asyncio.to_thread(parts.register.list):
        if parts.clock() - row.heartbeat_at > _SILENT_WORKER_S:
            await asyncio.to_thread(parts.register.leave, row.id)


async def purge(parts: Parts) -> None:
    """Remove jobs and files as the settings say."""
    await asyncio.to_thread(parts.looks.drop_older, GRACE_S)
    keep = parts.settings.storage
    retention = Retention(parts.store, parts.storage, parts.clock, keep_days=keep.keep_days, keep_bytes=keep.keep_bytes)
    removed = await asyncio.to_thread(retention.run)
    if removed:
        _LOG.info("removed", extra={"jobs": removed.jobs, "files": removed.files, "bytes": removed.bytes})


def start(parts: Parts) -> list[asyncio.Task[None]]:
    """All of it, as tasks to be cancelled at the end."""

    async def deliver() -> None:
        await send_webhooks(parts)

    duties: list[tuple[Callable[[], Awaitable[None]], float]] = [
        (deliver, _WEBHOOK_LOOK_S),
        (lambda: reap(parts), _REAP_S),
        (lambda: purge(parts), _PURGE_S),
        (lambda: asyncio.to_thread(parts.database.checkpoint), _CHECKPOINT_S),
    ]
    return [asyncio.create_task(_for_ever(duty, pause_s)) for duty, pause_s in duties]


async def _for_ever(duty: Callable[[], Awaitable[None]], pause_s: float) -> None:
    while True:
        try:
            await duty()
        except LichtError as error:
            _LOG.warning("will try again", extra={"reason": error.message})
        except Exception:  # noqa: BLE001 - one failure must not end webhooks for good
            _LOG.exception("will try again")
        await asyncio.sleep(pause_s)
