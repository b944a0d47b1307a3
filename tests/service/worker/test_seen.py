"""What a worker tells about its work, and that stopping keeps to its limit."""

import threading
import time
from pathlib import Path

import pytest

from licht.service.database.connect import Database
from licht.service.queue import tallies
from licht.service.queue.records import QueueLimits, State, Task
from licht.service.queue.register import Register
from licht.service.queue.store import JobStore
from licht.service.storage import Storage
from licht.service.worker.loop import Worker, WorkerLimits
from licht.service.worker.measure import StageClock
from tests.service.conftest import PATIENCE_S, NewJobs
from tests.service.fakes import FakeDrawer

LIMITS = WorkerLimits(heartbeat_s=0.05, stall_s=60, drain_s=0.1, idle_s=0.05, look_s=0.005)


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database, QueueLimits(lease_s=5.0))


def until(store: JobStore, job_id: str, state: State) -> None:
    end = time.monotonic() + PATIENCE_S
    while store.get(job_id).state is not state:
        assert time.monotonic() < end, f"the job is still {store.get(job_id).state}"
        time.sleep(0.005)


def test_stage_times_and_memory_are_told(store: JobStore, tmp_path: Path, new_job: NewJobs) -> None:
    new = new_job(task=Task("slow 0.05", 1, 64, 64, 4))
    store.submit(new)
    worker = Worker(store, Storage(f"file://{tmp_path}"), FakeDrawer(), LIMITS, "w1")
    thread = threading.Thread(target=worker.run)
    begun = time.monotonic()
    thread.start()
    try:
        until(store, new.id, State.READY)
        end = time.monotonic() + PATIENCE_S
        while (row := Register(store.database).list()[0]).memory_bytes is None:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert row.memory_bytes > 2**20
    finally:
        worker.stop()
        thread.join()
    found = {(name, labels.get("stage", "")): value for name, labels, value in tallies.read(store.database)}
    assert 0.2 <= found["licht_stage_seconds", "denoise"] < time.monotonic() - begun
    assert found["licht_stages", "denoise"] == 1
    assert found["licht_steps", ""] == 4


def test_a_step_that_outlasts_the_draining_is_given_up(store: JobStore, tmp_path: Path, new_job: NewJobs) -> None:
    new = new_job(task=Task("held", 1, 64, 64, 1))
    store.submit(new)
    drawing, overdue = threading.Event(), threading.Event()
    drawer = FakeDrawer()

    def hold(step: int) -> None:
        """The step ends after the worker was given up, however late that is."""
        drawing.set()
        overdue.wait(PATIENCE_S)

    drawer.hold = hold
    worker = Worker(store, Storage(f"file://{tmp_path}"), drawer, LIMITS, "w1", on_overdue=overdue.set)
    thread = threading.Thread(target=worker.run)
    thread.start()
    assert drawing.wait(PATIENCE_S)
    worker.stop()
    assert overdue.wait(PATIENCE_S)
    job = store.get(new.id)
    assert (job.state, job.failures, job.deaths) == (State.QUEUED, 0, 0)
    thread.join()
    assert store.get(new.id).state is State.QUEUED


def test_a_stage_clock_leaves_nothing_out() -> None:
    before = time.perf_counter()
    clock = StageClock()
    after = time.perf_counter()
    for stage in ("encode_prompt", "denoise", "denoise"):
        time.sleep(0.01)
        clock.note(stage)
    least_s = time.perf_counter() - after
    seconds = clock.seconds("release")
    most_s = time.perf_counter() - before
    assert seconds["encode_prompt"] >= 0.01
    assert seconds["denoise"] >= 0.02
    assert least_s <= sum(seconds.values()) <= most_s
