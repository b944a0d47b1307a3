"""What a caller may rely on: repeated requests, callers who hang up, ageing, sums for the metrics."""

import asyncio
import json

import pytest
from sqlalchemy import select

from licht.core.errors import IdempotencyConflict, IdempotencyRunning
from licht.service.database.connect import Database
from licht.service.database.tables import TALLIES
from licht.service.keys import KeyStore
from licht.service.queue import tallies
from licht.service.queue.changes import Changes
from licht.service.queue.records import Claim, Idempotency, Outcome, QueueLimits, State
from licht.service.queue.store import JobStore
from licht.service.queue.waiting import OnDisconnect, Wanting, wait_for_end, wanted_s
from tests.service.conftest import Clock, NewJobs

READY = Outcome(State.READY, result={"blob": "b"}, steps=4, stage_s={"denoise": 2.0, "decode": 0.5})


def claimed(store: JobStore, owner: str = "w1") -> Claim:
    claim = store.leases.claim(owner)
    assert claim is not None
    return claim


def test_a_call_that_waits_is_repeated_only_after_its_end(store: JobStore, new_job: NewJobs) -> None:
    """409 while it runs, 422 for another body, the same job after."""
    first = new_job(idempotency=Idempotency("token", "hash", "", awaits_end=True))
    assert store.submit(first).replayed is None
    again = Idempotency("token", "hash", "", awaits_end=True)

    def refused() -> None:
        with pytest.raises(IdempotencyRunning):
            store.replay(first.key_id, again)
        with pytest.raises(IdempotencyRunning):
            store.submit(new_job(idempotency=again))
        with pytest.raises(IdempotencyConflict):
            store.replay(first.key_id, Idempotency("token", "another", "", awaits_end=True))

    refused()
    claim = claimed(store)
    refused()
    store.leases.finish(claim, READY)
    replayed = store.submit(new_job(idempotency=again))
    assert (replayed.job_id, replayed.replayed) == (first.id, "")
    assert store.depth().by_state["ready"] == 1


def test_a_call_that_was_called_off_is_drawn_anew(store: JobStore, new_job: NewJobs) -> None:
    """Nobody waited any more; whoever repeats the call under its token wants the picture after all."""
    token = Idempotency("token", "hash", "", awaits_end=True)
    first, second = new_job(idempotency=token), new_job(idempotency=token)
    store.submit(first)
    store.cancel(first.id)
    assert store.replay(first.key_id, token) is None
    assert store.submit(second).job_id == second.id
    with pytest.raises(IdempotencyRunning):
        store.submit(new_job(idempotency=token))


@pytest.mark.parametrize(("policy", "ends_as"), [("cancel", State.CANCELLED), ("finish", State.QUEUED)])
def test_the_job_of_a_caller_who_hangs_up(
    store: JobStore, new_job: NewJobs, policy: OnDisconnect, ends_as: State
) -> None:
    new = new_job(wanted_s=wanted_s(store, policy))
    store.submit(new)
    looks = 0

    async def gone() -> bool:
        nonlocal looks
        looks += 1
        return looks > 2

    assert asyncio.run(wait_for_end(store, Changes(store.database), new.id, policy, gone)) is None
    assert store.get(new.id).state is ends_as


def test_a_caller_who_stays_gets_the_end(store: JobStore, new_job: NewJobs) -> None:
    new = new_job(wanted_s=wanted_s(store, "cancel"))
    store.submit(new)

    async def gone() -> bool:
        claim = store.leases.claim("w")
        if claim is not None:
            store.leases.finish(claim, READY)
        return False

    job = asyncio.run(wait_for_end(store, Changes(store.database), new.id, "cancel", gone))
    assert job is not None
    assert job.state is State.READY


@pytest.mark.parametrize(("policy", "times"), [("cancel", 4), ("finish", 0)])
def test_whoever_looks_after_a_caller_says_so_within_each_lease(
    database: Database, monkeypatch: pytest.MonkeyPatch, policy: OnDisconnect, times: int
) -> None:
    store = JobStore(database, QueueLimits(lease_s=0.03))
    told: list[tuple[str, float]] = []
    monkeypatch.setattr(store, "want", lambda *said: told.append(said))

    async def look() -> None:
        wanting = Wanting(store, "job", policy)
        for _ in range(4):
            await asyncio.sleep(0.011)
            await wanting.renew()

    asyncio.run(look())
    assert told == [("job", 0.03)] * times


def test_a_job_goes_with_its_caller_even_if_the_process_between_them_died(
    store: JobStore, new_job: NewJobs, clock: Clock
) -> None:
    waiting, running, independent = new_job(wanted_s=10.0), new_job(wanted_s=10.0), new_job()
    store.submit(running)
    claim = claimed(store)
    store.submit(waiting)
    store.submit(independent)
    clock.now += 8
    store.leases.keep(claim)
    store.want(running.id, 10.0)
    store.want(independent.id, 10.0)
    assert store.cancel_unwanted() == 0
    clock.now += 3
    assert store.cancel_unwanted() == 1
    assert store.get(waiting.id).state is State.CANCELLED
    clock.now += 8
    assert store.cancel_unwanted() == 1
    assert store.cancel_unwanted() == 0
    assert store.leases.keep(claim) is True
    store.leases.finish(claim, Outcome(State.CANCELLED))
    clock.now += 1000
    assert store.cancel_unwanted() == 0
    assert store.get(independent.id).state is State.QUEUED


def test_a_low_priority_grows_old_and_is_served(store: JobStore, new_job: NewJobs, keys: KeyStore) -> None:
    """Ageing: under endless work of a higher priority, a waiting job is overtaken by a bounded amount of it."""
    urgent = keys.create("urgent", priority=2).key.id
    low = keys.create("low", priority=-1).key.id
    store.submit(new_job(key_id=urgent, work=25.0))
    claimed(store)
    patient = new_job(key_id=low, work=25.0)
    store.submit(patient)
    overtaken = 0.0
    while True:
        store.submit(new_job(key_id=urgent, work=25.0))
        claim = claimed(store)
        if claim.job_id == patient.id:
            break
        overtaken += 25.0
        assert overtaken <= 3 * store.limits.priority_work + 50
        store.leases.finish(claim, READY)
    assert overtaken >= 2 * store.limits.priority_work


def test_sums_are_written_with_the_end(store: JobStore, new_job: NewJobs, clock: Clock, database: Database) -> None:
    for wait_s, outcome in ((0.2, READY), (7.0, READY), (9999.0, Outcome(State.FAILED, error="x"))):
        store.submit(new_job(output_px=2_000_000, input_px=500_000))
        clock.now += wait_s
        claim = claimed(store)
        clock.now += 4.0
        store.leases.finish(claim, outcome)
    found = {(name, *labels.values()): value for name, labels, value in tallies.read(database)}
    route = "flux-2-pro"
    assert found["licht_jobs_ended", route, "ready"] == 2
    assert found["licht_jobs_ended", route, "failed"] == 1
    assert found["licht_queue_seconds_bucket", "0.25", route] == 1
    assert found["licht_queue_seconds_bucket", "10.0", route] == 1
    assert found["licht_queue_seconds_bucket", "+Inf", route] == 1
    assert found["licht_queue_seconds_sum", route] == pytest.approx(10006.2)
    assert found["licht_run_seconds_bucket", "5.0", route, "ready"] == 2
    assert found["licht_steps_per_second_bucket", "2.5", route] == 2
    assert found["licht_stage_seconds", "denoise"] == 4
    assert found["licht_output_megapixels", route] == 4
    assert found["licht_input_megapixels", route] == 1.5
    assert found["licht_credits", route] == 6


def test_sums_of_a_transaction_that_fails_are_not_there(store: JobStore, new_job: NewJobs, database: Database) -> None:
    store.submit(new_job())
    claim = claimed(store)
    store.leases.finish(claim, READY)
    with pytest.raises(Exception, match="another worker"):
        store.leases.finish(claim, READY)
    with database.read() as connection:
        rows = connection.execute(select(TALLIES).where(TALLIES.c.name == "licht_jobs_ended")).all()
    assert [(json.loads(row.labels), row.value) for row in rows] == [({"route": "flux-2-pro", "state": "ready"}, 1.0)]
