"""Synchronous calls: waiting for a job's end while its caller stays, and what becomes of the job when the caller goes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Literal, TypeAlias

from licht.service.queue.changes import Changes
from licht.service.queue.records import Job, State
from licht.service.queue.store import JobStore

OnDisconnect: TypeAlias = Literal["cancel", "finish"]
_LOOK_S: Final = 0.25


def wanted_s(store: JobStore, policy: OnDisconnect) -> float | None:
    """What a job that is waited for is made with (`NewJob.wanted_s`): None where it ends whoever is there."""
    return store.limits.lease_s if policy == "cancel" else None


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
    renew_s = store.limits.lease_s / 3
    loop = asyncio.get_running_loop()
    renewed = loop.time()
    with changes.follow() as following:
        while True:
            job = await asyncio.to_thread(store.get, job_id)
            if job.state.final:
                return job
            if stops(job.state) or await gone():
                if policy == "cancel":
                    await asyncio.to_thread(store.cancel, job_id)
                return None
            if policy == "cancel" and loop.time() - renewed > renew_s:
                renewed = loop.time()
                await asyncio.to_thread(store.want, job_id, store.limits.lease_s)
            await following.wait(_LOOK_S)
