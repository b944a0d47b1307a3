"""Calls that answer with the picture itself: submitted like any other, then waited for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from licht.core.errors import InvalidRequest, LichtError, NotAvailable, Refused
from licht.service.api.accept import accept
from licht.service.api.draft import Draft
from licht.service.api.ending import Stopping
from licht.service.api.inputs import Inputs
from licht.service.api.parts import Parts
from licht.service.keys import Key
from licht.service.queue.previews import PreviewRow
from licht.service.queue.records import Job, State
from licht.service.queue.waiting import OnDisconnect, Wanting, wait_for_end, wanted_s

_LOOK_S: Final = 0.25
_STOPPED: Final[Mapping[OnDisconnect, str]] = MappingProxyType(
    {
        "cancel": "the service is stopping and the picture was called off, free of charge; ask again in a moment",
        "finish": "the service is stopping; the picture is drawn later, as job {id}",
    }
)


@dataclass(frozen=True, slots=True)
class Call:
    """A call that waits: whose, under which address of this service, and whether the caller is still there."""

    parts: Parts
    inputs: Inputs
    key: Key
    base_url: str
    gone: Callable[[], Awaitable[bool]]

    async def submit(self, draft: Draft) -> list[str]:
        """Queue a request; returns the ids of its jobs. Raises as `accept` does."""
        policy = self.parts.settings.queue.on_disconnect
        waited = replace(draft, wanted_s=wanted_s(self.parts.store, policy), idempotency_awaits_end=True)
        response = await accept(self.parts, self.inputs, self.key, waited, self.base_url)
        first = await asyncio.to_thread(self.parts.store.get, response["id"], self.key.id)
        return list(first.task.batch) or [first.id]

    async def ready(self, ids: list[str]) -> list[Job]:
        """The jobs that got a picture, once all have ended. Raises why, if none did; `CallerGone`, `Stopping`."""
        parts, policy = self.parts, self.parts.settings.queue.on_disconnect
        stops = parts.ending.stops
        with parts.ending.call():
            waiting = (wait_for_end(parts.store, parts.changes, each, policy, self.gone, stops) for each in ids)
            ended = [job for job in await asyncio.gather(*waiting) if job is not None]
        if len(ended) < len(ids) and not parts.ending.draining:
            raise CallerGone("the caller did not wait for the picture")
        found = [job for job in ended if job.state is State.READY]
        if found:
            return found
        if len(ended) < len(ids):
            raise Stopping(_STOPPED[policy].format(id=ids[0]))
        raise why(ended[0])

    async def previews(self, job_id: str) -> AsyncIterator[PreviewRow]:
        """How the picture looks, whenever it has changed, until the job has ended or the caller is gone."""
        step: int | None = None
        # nobody waits for the end yet, and a job that nobody waits for is called off
        wanting = Wanting(self.parts.store, job_id, self.parts.settings.queue.on_disconnect)
        with self.parts.ending.call(), self.parts.changes.follow() as following:
            while True:
                job = await asyncio.to_thread(self.parts.store.get, job_id)
                if job.state.final or self.parts.ending.stops(job.state) or await self.gone():
                    return
                await wanting.renew()
                row = await asyncio.to_thread(self.parts.previews.get, job_id, step)
                if row is not None:
                    step = row.step
                    yield row
                await following.wait(_LOOK_S)


class CallerGone(NotAvailable):
    """Nobody is there any more to hear the answer."""

    code = "caller_gone"


def why(job: Job) -> LichtError:
    """Why an ended job has no picture."""
    message = job.error or "the picture could not be drawn"
    if job.state is State.MODERATED:
        return Refused(message, field="prompt")
    if job.state is State.CANCELLED:
        return NotAvailable("the job was cancelled")
    return InvalidRequest(message) if job.error_code == InvalidRequest.code else LichtError(message)
