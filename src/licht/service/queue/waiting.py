"""Synchronous calls: waiting for a job's end while its caller stays, and what becomes of the job when the caller goes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Literal, TypeAlias

from licht.service.queue.changes import Changes
from licht.service.queue.records import Job, State
from licht.service.queue.store import JobStore

OnDisconnect: TypeAlias = Literal["cancel", "finish"]
_LOOK_S: Final = 0.25
_TOLD_PER_LEASE: Final = 3


def wanted_s(store: JobStore, policy: OnDisconnect) -> float | None:
    """What a job that is waited for is made with (`NewJob.wanted_s`): None where it ends whoever is there."""
    return store.limits.lease_s if policy == "cancel" else None


class Wanting:
    """Tells the queue that the caller of a job is still there, while somebody in this process looks after that caller."""

    def __init__(self, store: JobStore, job_id: str, policy: OnDisconnect) -> None:
        """With the policy "finish" there is nothing to tell."""
        self._store = store
        self._job_id = job_id
        self._pause_s = store.limits.lease_s / _TOLD_PER_LEASE
        self._next = time.monotonic() + self._pause_s if policy == "cancel" else float("inf")

    async def renew(self) -> None:
        """To be called several times within a lease; says so whenever a third of it has gone."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._pause_s
            await asyncio.to_thread(self._store.want, self._job_id, self._store.limits.lease_s)


async def wait_for_end(
    store: JobStore,
    changes: Changes,
    job_id: str,
    policy: OnDisconnect,
    gone: Callable[[], Awaitable[bool]],
    stops: Callable[[State], bool] = lambda _state: False,
) -> Job | None:
    """The job when it has ended; None when the caller has `gone`, or the waiting `stops` with a job in that state.

    With the policy "cancel" a job goes with its caller: within one denoising step if this process sees it, else, when
    this process has died too, within a lease. With "finish" it is drawn all the same, and can be asked for later.
    Raises `UnknownJob`.
    """
    wanting = Wanting(store, job_id, policy)
    with changes.follow() as following:
        while True:
            job = await asyncio.to_thread(store.get, job_id)
            if job.state.final:
                return job
            if stops(job.state) or await gone():
                if policy == "cancel":
                    await asyncio.to_thread(store.cancel, job_id)
                return None
            await wanting.renew()
            await following.wait(_LOOK_S)
