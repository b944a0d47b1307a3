import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from licht.core.errors import NotAvailable
from licht.core.request import Picture
from licht.service.database.connect import Database
from licht.service.database.tables import JOBS
from licht.service.queue.leases import Leases
from licht.service.queue.records import Input, QueueLimits, State, Task
from licht.service.queue.register import Register
from licht.service.queue.store import JobStore
from licht.service.storage import Storage
from licht.service.worker.loop import Worker, WorkerLimits
from tests.service.conftest import PATIENCE_S, NewJobs
from tests.service.fakes import FakeDrawer

LIMITS = WorkerLimits(heartbeat_s=0.05, stall_s=60, drain_s=0.2, idle_s=0.05, look_s=0.005)


@pytest.fixture
def store(database: Database) -> JobStore:
    """With the real clock; no test waits for a lease to run out."""
    return JobStore(database, QueueLimits(lease_s=PATIENCE_S, retry_delay_s=0.01, max_attempts=2))


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path / 'blobs'}")


@pytest.fixture
def drawer() -> FakeDrawer:
    return FakeDrawer()


class Gate:
    """Where a drawing of the prompt "held" stops before a step, until it is opened."""

    def __init__(self, drawer: FakeDrawer, step: int = 1) -> None:
        self._step = step
        self._reached = threading.Event()
        self._open = threading.Event()
        drawer.hold = self._hold

    def _hold(self, step: int) -> None:
        if step == self._step:
            self._reached.set()
            assert self._open.wait(PATIENCE_S)

    def reached(self) -> None:
        assert self._reached.wait(PATIENCE_S)

    def open(self) -> None:
        self._open.set()


@contextmanager
def at_work(worker: Worker) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield thread
    finally:
        worker.stop()
        thread.join()


def until(store: JobStore, job_id: str, *states: State, timeout_s: float = PATIENCE_S) -> State:
    end = time.monotonic() + timeout_s
    while (state := store.get(job_id).state) not in states:
        assert time.monotonic() < end, f"the job is still {state}"
        time.sleep(0.005)
    return state


def test_a_worker_draws_what_is_asked(store: JobStore, storage: Storage, drawer: FakeDrawer, new_job: NewJobs) -> None:
    reference = storage.put_picture(Picture(64, 64, b"abc" * 4096))
    task = Task("a cube", 2**63 + 5, 80, 64, 3, 2.5, (Input(reference, "image 1"),), "PNG")
    new = new_job(task=task)
    store.submit(new)
    worker = Worker(store, storage, drawer, LIMITS, "w1")
    with at_work(worker):
        until(store, new.id, State.READY)
        (row,) = Register(store.database).list()
        assert (row.id, row.model, row.ready_at is not None) == ("w1", "fake", True)
    assert Register(store.database).list() == []
    job = store.get(new.id)
    assert job.result is not None
    told = {name: job.result[name] for name in ("media_type", "width", "height", "seed", "steps", "guidance", "model")}
    assert told == {
        "media_type": "image/png", "width": 80, "height": 64, "seed": 2**63 + 5, "steps": 3, "guidance": 2.5,
        "model": "fake",
    }  # fmt: skip
    assert storage.get(job.result["blob"]).startswith(b"\x89PNG")
    *warm, request = drawer.requests
    assert [each.steps for each in warm] == [1, 1, 2]
    assert (request.seeds, request.references[0].picture.rgb[:3]) == ((5,), b"abc")


@pytest.mark.parametrize(
    ("prompt", "state", "code"),
    [
        ("refuse-request", State.MODERATED, "request_moderated"),
        ("refuse-picture", State.MODERATED, "content_moderated"),
        ("invalid", State.FAILED, "invalid_request"),
        ("no-memory", State.FAILED, "out_of_memory"),
        ("defect", State.FAILED, "internal_error"),
    ],
)
def test_how_a_job_can_end(
    store: JobStore, storage: Storage, drawer: FakeDrawer, new_job: NewJobs, prompt: str, state: State, code: str
) -> None:
    new, after = new_job(task=Task(prompt, 1, 64, 64)), new_job()
    store.submit(new)
    store.submit(after)
    with at_work(Worker(store, storage, drawer, LIMITS)):
        assert until(store, new.id, *[each for each in State if each.final]) is state
        until(store, after.id, State.READY)
    job = store.get(new.id)
    tried_again = prompt in ("no-memory", "defect")
    assert (job.error_code, job.dead_letter, job.failures) == (
        (code, "attempts", 2) if tried_again else (code, None, 0)
    )


def test_a_lost_input_is_tried_again_and_then_given_up(
    store: JobStore, storage: Storage, drawer: FakeDrawer, new_job: NewJobs
) -> None:
    new = new_job(task=Task("a", 1, 64, 64, inputs=(Input("0" * 64, "image 1"),)))
    store.submit(new)
    with at_work(Worker(store, storage, drawer, LIMITS)):
        until(store, new.id, State.FAILED)
    assert (store.get(new.id).error_code, store.get(new.id).dead_letter) == ("not_available", "attempts")


def test_cancelling_stops_within_one_step(
    store: JobStore, storage: Storage, drawer: FakeDrawer, new_job: NewJobs
) -> None:
    new = new_job(task=Task("held", 1, 64, 64, steps=50))
    store.submit(new)
    gate = Gate(drawer, step=6)
    with at_work(Worker(store, storage, drawer, LIMITS)):
        gate.reached()
        store.cancel(new.id)
        gate.open()
        until(store, new.id, State.CANCELLED)
    assert drawer.closed_after == [6]  # the step at hand


def test_a_stopping_worker_finishes_what_is_short_and_hands_back_what_is_long(
    store: JobStore, storage: Storage, drawer: FakeDrawer, new_job: NewJobs
) -> None:
    for drain_s, state in ((PATIENCE_S, State.READY), (0.0, State.QUEUED)):
        new = new_job(task=Task("held", 1, 64, 64))
        store.submit(new)
        gate = Gate(drawer, step=2)
        worker = Worker(store, storage, drawer, replace(LIMITS, drain_s=drain_s))
        with at_work(worker) as thread:
            gate.reached()
            worker.stop()
            gate.open()
            thread.join(PATIENCE_S)
        assert store.get(new.id).state is state
        assert (store.get(new.id).deaths, store.get(new.id).failures) == (0, 0)
        store.cancel(new.id)


def test_the_heartbeat_keeps_the_lease_through_a_long_step(
    store: JobStore, storage: Storage, drawer: FakeDrawer, new_job: NewJobs
) -> None:
    new = new_job(task=Task("held", 1, 64, 64, steps=1))
    store.submit(new)
    gate = Gate(drawer)
    with at_work(Worker(store, storage, drawer, LIMITS)):
        gate.reached()
        first = lease_until(store, new.id)
        end = time.monotonic() + PATIENCE_S
        while lease_until(store, new.id) < first + 0.1:
            assert time.monotonic() < end, "nobody renews the lease"
            time.sleep(0.005)
        # by a clock at which the first lease has run out
        assert JobStore(store.database, store.limits, lambda: first + 0.05).leases.reap() == 0
        gate.open()
        until(store, new.id, State.READY)
    assert store.get(new.id).attempt == 1


def lease_until(store: JobStore, job_id: str) -> float:
    with store.database.read() as connection:
        return float(connection.execute(select(JOBS.c.lease_until).where(JOBS.c.id == job_id)).scalar_one())


def test_a_job_in_other_hands_is_dropped(
    store: JobStore, storage: Storage, drawer: FakeDrawer, new_job: NewJobs
) -> None:
    new = new_job(task=Task("held", 1, 64, 64, steps=20))
    store.submit(new)
    gate = Gate(drawer, step=3)
    worker = Worker(store, storage, drawer, replace(LIMITS, drain_s=PATIENCE_S), "w1")
    with at_work(worker) as thread:
        gate.reached()
        worker.stop()  # so that it does not take the job itself again
        assert store.leases.reap(owner="w1") == 1
        gate.open()
        thread.join(PATIENCE_S)
    assert len(drawer.closed_after) == 1
    job = store.get(new.id)
    assert (job.state, job.deaths) == (State.QUEUED, 1)


def test_a_hung_engine_ends_the_worker(store: JobStore, storage: Storage, drawer: FakeDrawer, new_job: NewJobs) -> None:
    stalled = threading.Event()
    limits = WorkerLimits(heartbeat_s=0.05, stall_s=0.3, drain_s=0.2, idle_s=0.05)
    new = new_job(task=Task("held", 1, 64, 64, steps=1))
    store.submit(new)
    gate = Gate(drawer)
    with at_work(Worker(store, storage, drawer, limits, on_stall=stalled.set)):
        gate.reached()
        stalled.clear()  # a slow machine may have taken long over the first pictures too
        assert stalled.wait(PATIENCE_S)
        assert store.get(new.id).state is State.RUNNING
        gate.open()
        until(store, new.id, State.READY)


def test_a_database_that_is_away_for_a_moment_ends_no_worker_and_loses_no_picture(
    store: JobStore, storage: Storage, drawer: FakeDrawer, new_job: NewJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = new_job()
    left = {"claim": 2, "finish": 3}

    def away(name: str) -> Callable[..., Any]:
        real = getattr(Leases, name)

        def call(*arguments: object) -> object:
            if left[name]:
                left[name] -= 1
                raise NotAvailable("the database does not answer")
            return real(*arguments)

        return call

    for name in left:
        monkeypatch.setattr(Leases, name, away(name))
    store.submit(new)
    with at_work(Worker(store, storage, drawer, LIMITS)):
        until(store, new.id, State.READY)
    assert left == {"claim": 0, "finish": 0}
    assert len(drawer.requests) == 4  # three before it is ready, and this one once
