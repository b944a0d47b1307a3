import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select, update

from licht.core.errors import (
    IdempotencyConflict,
    InsufficientCredits,
    LeaseLost,
    NotAuthenticated,
    TooManyJobs,
    UnknownJob,
)
from licht.service.database.connect import Database
from licht.service.database.tables import IDEMPOTENCY, JOBS, KEYS, METERING, WEBHOOKS
from licht.service.keys import KeyStore
from licht.service.queue.records import Claim, Idempotency, Input, Outcome, State, Task
from licht.service.queue.store import JobStore
from tests.service.conftest import Clock, NewJobs

READY = Outcome(State.READY, result={"blob": "b", "seed": 1}, blobs=("b",), steps=4)


def claimed(store: JobStore, owner: str = "w1") -> Claim:
    claim = store.leases.claim(owner)
    assert claim is not None
    return claim


def count(database: Database, table: str) -> int:
    tables = {"metering": METERING, "webhooks": WEBHOOKS, "jobs": JOBS, "idempotency": IDEMPOTENCY}
    with database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(tables[table])).scalar_one())


def test_a_job_goes_from_queued_to_ready(store: JobStore, new_job: NewJobs, clock: Clock, key_id: str) -> None:
    task = Task("a cube \u2603 \0", 2**62, 64, 128, 4, 3.5, (Input("d1", "image 1"),), "PNG", 5)
    new = new_job(task=task, input_px=100)
    assert store.submit(new).job_id == new.id
    assert store.get(new.id).state is State.QUEUED
    assert store.get(new.id).task == task
    clock.now += 3
    claim = claimed(store)
    assert (claim.job_id, claim.attempt, claim.task, claim.key_id) == (new.id, 1, task, key_id)
    assert store.leases.claim("w2") is None
    assert store.leases.keep(claim, "denoise", 0.5) is False
    assert (store.get(new.id).stage, store.get(new.id).progress) == ("denoise", 0.5)
    clock.now += 2
    store.leases.finish(claim, READY)
    job = store.get(new.id)
    assert (job.state, job.result, job.progress) == (State.READY, READY.result, 1.0)
    assert job.started_at is not None
    assert job.finished_at is not None
    assert (job.started_at - job.created_at, job.finished_at - job.started_at) == (3, 2)
    with store.database.read() as connection:
        row = connection.execute(select(METERING)).one()
    assert (row.job_id, row.cost_milli, row.queue_s, row.run_s, row.pictures, row.steps) == (new.id, 3000, 3, 2, 1, 4)


def test_nothing_can_be_finished_twice(store: JobStore, new_job: NewJobs, database: Database) -> None:
    store.submit(new_job(webhook_url="https://example.org"))
    claim = claimed(store)
    store.leases.finish(claim, READY)
    for again in (READY, Outcome(State.FAILED, error="late")):
        with pytest.raises(LeaseLost):
            store.leases.finish(claim, again)
    assert (count(database, "metering"), count(database, "webhooks")) == (1, 1)


def test_the_end_is_one_transaction(store: JobStore, new_job: NewJobs, database: Database) -> None:
    """If the webhook cannot be written, neither is the result: here the row that it would need is taken."""
    new = new_job(webhook_url="https://example.org")
    store.submit(new)
    claim = claimed(store)
    values = {"id": "x", "job_id": new.id, "url": "u", "state": "pending", "attempts": 0, "next_at": 0, "created_at": 0}
    with database.write() as connection:
        connection.execute(WEBHOOKS.insert().values(values))
    with pytest.raises(Exception, match=r"(?i)unique"):
        store.leases.finish(claim, READY)
    assert store.get(new.id).state is State.RUNNING
    assert count(database, "metering") == 0


def test_a_dead_workers_job_goes_to_another_and_the_late_result_counts_for_nothing(
    store: JobStore, new_job: NewJobs, clock: Clock
) -> None:
    new = new_job()
    store.submit(new)
    first = claimed(store, "w1")
    clock.now += 9
    store.leases.keep(first)
    clock.now += 9
    assert store.leases.reap() == 0
    clock.now += 2
    assert store.leases.reap() == 1
    second = claimed(store, "w1")
    assert (second.job_id, second.attempt) == (new.id, 2)
    with pytest.raises(LeaseLost):
        store.leases.keep(first)
    with pytest.raises(LeaseLost):
        store.leases.finish(first, READY)
    with pytest.raises(LeaseLost):
        store.leases.hand_back(first)
    with pytest.raises(LeaseLost):
        store.leases.fail_attempt(first, "x", "y")
    store.leases.finish(second, READY)
    job = store.get(new.id)
    assert (job.state, job.deaths, job.failures) == (State.READY, 1, 0)


def test_a_job_that_kills_three_workers_is_poison(
    store: JobStore, new_job: NewJobs, clock: Clock, database: Database
) -> None:
    new = new_job(webhook_url="https://example.org")
    store.submit(new)
    for death in range(1, 4):
        claimed(store, f"w{death}")
        assert store.leases.reap(owner="somebody else") == 0
        assert store.leases.reap(owner=f"w{death}") == 1
    job = store.get(new.id)
    assert (job.state, job.dead_letter, job.deaths, job.error_code) == (State.FAILED, "poison", 3, "worker_died")
    assert [letter.id for letter in store.dead_letters()] == [new.id]
    assert store.depth().dead_letters == 1
    assert store.leases.claim("w4") is None
    assert (count(database, "metering"), count(database, "webhooks")) == (1, 1)


def test_failed_attempts_wait_longer_each_time_and_end_as_a_dead_letter(
    store: JobStore, new_job: NewJobs, clock: Clock
) -> None:
    new = new_job()
    store.submit(new)
    for wait_s in (1, 2):
        assert store.leases.fail_attempt(claimed(store), "out_of_memory", "no memory") is State.QUEUED
        clock.now += wait_s - 0.01
        assert store.leases.claim("w") is None
        clock.now += 0.02
    assert store.leases.fail_attempt(claimed(store), "out_of_memory", "no memory") is State.FAILED
    job = store.get(new.id)
    assert (job.dead_letter, job.failures, job.deaths, job.error) == ("attempts", 3, 0, "no memory")


def test_a_stopping_worker_hands_its_job_back_uncounted(store: JobStore, new_job: NewJobs) -> None:
    first, second = new_job(), new_job()
    store.submit(first)
    store.submit(second)
    store.leases.hand_back(claimed(store))
    claim = claimed(store)
    assert (claim.job_id, store.get(first.id).failures, store.get(first.id).deaths) == (first.id, 0, 0)


def test_cancelling(store: JobStore, new_job: NewJobs, clock: Clock, database: Database) -> None:
    waiting, running, dying = new_job(webhook_url="https://example.org"), new_job(), new_job()
    store.submit(running)
    claim = claimed(store)
    store.submit(waiting)
    assert store.cancel(waiting.id).state is State.CANCELLED
    assert count(database, "webhooks") == 1
    job = store.cancel(running.id)
    assert (job.state, job.cancel_requested) == (State.RUNNING, True)
    assert store.leases.keep(claim) is True
    store.leases.finish(claim, Outcome(State.CANCELLED))
    assert store.cancel(running.id).state is State.CANCELLED
    store.submit(dying)
    claimed(store)
    store.cancel(dying.id)
    clock.now += 11
    store.leases.reap()
    assert store.get(dying.id).state is State.CANCELLED
    with pytest.raises(UnknownJob):
        store.cancel("nothing")
    with pytest.raises(UnknownJob):
        store.cancel(running.id, key_id="somebody else")


def test_keys_share_fairly(store: JobStore, new_job: NewJobs, keys: KeyStore) -> None:
    """A short job behind fifty long ones of another key is next, and two long queues alternate."""
    other = keys.create("other").key.id
    long = [new_job(work=50.0) for _ in range(50)]
    for new in long:
        store.submit(new)
    running = claimed(store)
    short = new_job(key_id=other, work=1.0)
    store.submit(short)
    assert store.position(store.get(short.id)) == 0
    store.leases.finish(running, READY)
    assert claimed(store).job_id == short.id
    theirs = [new_job(key_id=other, work=50.0) for _ in range(5)]
    for new in theirs:
        store.submit(new)
    order = [claimed(store).key_id == other for _ in range(10)]
    assert sorted(order) == [False] * 5 + [True] * 5
    assert max(order[:2]) > min(order[:2])
    assert order[0] != order[1]


def test_work_of_the_past_counts_against_nobody(store: JobStore, new_job: NewJobs, keys: KeyStore) -> None:
    for _ in range(20):
        store.submit(new_job())
        store.leases.finish(claimed(store), READY)
    first, second = new_job(), new_job(key_id=keys.create("new").key.id)
    store.submit(first)
    store.submit(second)
    assert claimed(store).job_id == first.id


def test_cancelled_work_counts_against_nobody(store: JobStore, new_job: NewJobs, keys: KeyStore) -> None:
    store.submit(new_job())
    claimed(store)
    dropped = [new_job(work=100.0) for _ in range(5)]
    for new in dropped:
        store.submit(new)
    for new in dropped:
        store.cancel(new.id)
    mine, other = new_job(), [new_job(key_id=keys.create("other").key.id) for _ in range(1)]
    store.submit(mine)
    store.submit(other[0])
    assert claimed(store).job_id == other[0].id  # the running job is mine, so the other key is first
    assert claimed(store).job_id == mine.id


def test_priority_overtakes_but_does_not_starve(store: JobStore, new_job: NewJobs, keys: KeyStore) -> None:
    urgent = keys.create("urgent", priority=1).key.id
    patient = new_job()
    store.submit(new_job(work=10.0))
    claimed(store)
    store.submit(patient)
    served = 0
    while True:
        store.submit(new_job(key_id=urgent, work=10.0))
        claim = claimed(store)
        if claim.job_id == patient.id:
            break
        served += 1
        store.leases.finish(claim, READY)
    # a level of priority is worth 100 units of work, the patient job waits for 10 units of its own key
    assert 10 <= served <= 12


def test_limits_of_a_key(store: JobStore, new_job: NewJobs, keys: KeyStore) -> None:
    key = keys.create("small", active_limit=2).key.id
    for _ in range(2):
        store.submit(new_job(key_id=key))
    with pytest.raises(TooManyJobs, match="2 jobs of this key are active and 2 are allowed"):
        store.submit(new_job(key_id=key))
    store.leases.finish(claimed(store), READY)
    store.submit(new_job(key_id=key))
    keys.revoke(key)
    with pytest.raises(NotAuthenticated):
        store.submit(new_job(key_id=key))


def test_credits_are_reserved_and_only_pictures_are_paid(store: JobStore, new_job: NewJobs, keys: KeyStore) -> None:
    key = keys.create("poor", credits_milli=7000).key.id
    for _ in range(2):
        store.submit(new_job(key_id=key))
    with pytest.raises(InsufficientCredits):
        store.submit(new_job(key_id=key))
    assert keys.get(key).credits_milli == 7000
    store.leases.finish(claimed(store), Outcome(State.MODERATED, error_code="content_moderated", error="no"))
    assert keys.get(key).credits_milli == 7000
    store.leases.finish(claimed(store), READY)
    assert keys.get(key).credits_milli == 4000
    store.submit(new_job(key_id=key))
    with pytest.raises(InsufficientCredits):
        store.submit(new_job(key_id=key))


def test_idempotency(store: JobStore, new_job: NewJobs, keys: KeyStore, database: Database) -> None:
    first = new_job(idempotency=Idempotency("token", "hash", "the response"))
    assert store.submit(first).replayed is None
    again = store.submit(new_job(idempotency=Idempotency("token", "hash", "another response")))
    assert (again.job_id, again.replayed) == (first.id, "the response")
    with pytest.raises(IdempotencyConflict):
        store.submit(new_job(idempotency=Idempotency("token", "other hash", "r")))
    elsewhere = new_job(key_id=keys.create("other").key.id, idempotency=Idempotency("token", "other hash", "r"))
    assert store.submit(elsewhere).replayed is None
    assert count(database, "jobs") == 2


def test_fifty_parallel_calls_with_one_token_are_one_job(store: JobStore, new_job: NewJobs, database: Database) -> None:
    calls = [new_job(idempotency=Idempotency("token", "hash", "r")) for _ in range(50)]
    with ThreadPoolExecutor(16) as pool:
        ids = {accepted.job_id for accepted in pool.map(store.submit, calls)}
    assert len(ids) == 1
    assert (count(database, "jobs"), count(database, "idempotency")) == (1, 1)


def test_the_limit_of_a_key_is_exact_under_parallel_submits(store: JobStore, new_job: NewJobs, keys: KeyStore) -> None:
    key = keys.create("small", active_limit=5).key.id

    def attempt(_: int) -> bool:
        try:
            store.submit(new_job(key_id=key))
        except TooManyJobs:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(attempt, range(40))) == 5


def test_parallel_workers_never_share_a_job(store: JobStore, new_job: NewJobs, database: Database) -> None:
    jobs = [new_job() for _ in range(60)]
    for new in jobs:
        store.submit(new)

    def work(owner: int) -> list[str]:
        done = []
        while (claim := store.leases.claim(f"w{owner}")) is not None:
            store.leases.finish(claim, dataclasses.replace(READY, blobs=()))
            done.append(claim.job_id)
        return done

    with ThreadPoolExecutor(6) as pool:
        done = [job for part in pool.map(work, range(6)) for job in part]
    assert sorted(done) == sorted(new.id for new in jobs)
    assert count(database, "metering") == 60


def test_a_refused_request_is_a_job_that_is_over(store: JobStore, new_job: NewJobs, keys: KeyStore) -> None:
    key = keys.create("poor", credits_milli=0, active_limit=0).key.id
    outcome = Outcome(State.MODERATED, error_code="request_moderated", error="no")
    new = new_job(key_id=key, outcome=outcome, webhook_url="https://example.org")
    store.submit(new)
    assert (store.get(new.id).state, store.get(new.id).error) == (State.MODERATED, "no")
    assert store.leases.claim("w") is None
    assert count(store.database, "webhooks") == 1


def test_deleting_keeps_files_that_others_need(store: JobStore, new_job: NewJobs, clock: Clock) -> None:
    shared, own = Input("shared", "image 1"), Input("own", "image 2")
    first, second = (
        new_job(task=Task("a", 1, 64, 64, inputs=(shared, own))),
        new_job(task=Task("a", 1, 64, 64, inputs=(shared,)), webhook_url="https://example.org"),
    )
    store.submit(first)
    with pytest.raises(UnknownJob, match="still active"):
        store.delete(first.id)
    store.leases.finish(claimed(store), READY)
    store.submit(second)
    with pytest.raises(UnknownJob):
        store.delete(first.id, key_id="somebody else")
    assert store.delete(first.id) == ["b", "own"]
    with pytest.raises(UnknownJob):
        store.get(first.id)
    store.leases.finish(claimed(store), Outcome(State.FAILED, error="x"))
    assert store.oldest(10, ended_before=clock.now) == []
    clock.now += 100
    assert store.oldest(10, ended_before=clock.now - 50) == []  # its webhook has not been sent
    with store.database.write() as connection:
        connection.execute(update(WEBHOOKS).values(state="delivered"))
    assert store.oldest(10, ended_before=clock.now - 50) == [second.id]
    assert store.remove([second.id, "nobody's"]) == ["shared"]
    assert count(store.database, "metering") == 2


def test_the_schema_refuses_what_makes_no_sense(store: JobStore, new_job: NewJobs, database: Database) -> None:
    store.submit(new_job())
    for values in (
        {"state": "lost"},
        {"state": "running"},
        {"state": "ready"},
        {"dead_letter": "poison"},
        {"finished_at": 1.0},
        {"key_id": "nobody"},
    ):
        with pytest.raises(Exception, match=r"(?i)constraint"), database.write() as connection:
            connection.execute(update(JOBS).values(values))


def test_money_is_exact(store: JobStore, new_job: NewJobs, keys: KeyStore, database: Database) -> None:
    key = keys.create("k", credits_milli=10_000).key.id
    for _ in range(7):
        store.submit(new_job(key_id=key, cost_milli=1400))
        store.leases.finish(claimed(store), dataclasses.replace(READY, blobs=()))
    assert keys.get(key).credits_milli == 200
    with database.read() as connection:
        assert connection.execute(select(func.sum(METERING.c.cost_milli))).scalar() == 9800
        assert connection.execute(select(KEYS.c.fair_finish).where(KEYS.c.id == key)).scalar() == 7


def test_a_look_tells_whether_a_running_job_is_wanted(store: JobStore, new_job: NewJobs) -> None:
    new = new_job()
    store.submit(new)
    claim = store.leases.claim("w1")
    assert claim is not None
    assert store.leases.wanted(claim)
    store.cancel(new.id)
    assert not store.leases.wanted(claim)
    store.leases.reap(owner="w1")
    with pytest.raises(LeaseLost):
        store.leases.wanted(claim)
