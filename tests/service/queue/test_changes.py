import asyncio

from licht.service.database.connect import Database
from licht.service.queue.changes import Changes, Following
from licht.service.queue.records import Outcome, State
from licht.service.queue.store import JobStore
from tests.service.conftest import NewJobs

LONG_S = 60.0


def end_a_job(store: JobStore, new_job: NewJobs) -> None:
    store.submit(new_job())
    claim = store.leases.claim("w1")
    assert claim is not None
    store.leases.finish(claim, Outcome(State.FAILED, error_code="x", error="x"))


async def listening(changes: Changes, following: Following) -> None:
    """The first wait begins to listen, and tells when it does."""
    while changes.count == 0:
        await following.wait(LONG_S)


def test_who_follows_hears_at_once_that_a_job_has_ended(database: Database, store: JobStore, new_job: NewJobs) -> None:
    async def follow() -> float:
        changes, loop = Changes(database), asyncio.get_running_loop()
        with changes.follow() as following:
            await listening(changes, following)
            begun = loop.time()
            waiting = asyncio.create_task(following.wait(LONG_S))
            await asyncio.to_thread(end_a_job, store, new_job)
            await waiting
            took_s = loop.time() - begun
        await changes.close()
        return took_s

    assert asyncio.run(follow()) < LONG_S / 2


def test_what_changed_while_nobody_waited_is_not_missed(database: Database, store: JobStore, new_job: NewJobs) -> None:
    async def follow() -> float:
        changes, loop = Changes(database), asyncio.get_running_loop()
        with changes.follow() as following, changes.follow() as other:
            await listening(changes, following)
            waiting = asyncio.create_task(other.wait(LONG_S))
            await asyncio.to_thread(end_a_job, store, new_job)
            await waiting
            begun = loop.time()
            await following.wait(LONG_S)
            took_s = loop.time() - begun
        await changes.close()
        return took_s

    assert asyncio.run(follow()) < LONG_S / 2


def test_where_nothing_changes_a_wait_ends_by_itself(database: Database) -> None:
    async def follow() -> int:
        changes = Changes(database)
        with changes.follow() as following:
            await listening(changes, following)
            before = changes.count
            await following.wait(0.1)
            after = changes.count
        await changes.close()
        return after - before

    assert asyncio.run(follow()) == 0
