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
from tests.service.conftest import NewJobs
from tests.service.fakes import FakeDrawer

LIMITS = WorkerLimits(heartbeat_s=0.05, stall_s=60, drain_s=0.1, idle_s=0.05, look_s=0.005)


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database, QueueLimits(lease_s=5.0))


def until(store: JobStore, job_id: str, state: State) -> None:
    end = time.monotonic() + 20
    while store.get(job_id).state is not state:
        assert time.monotonic() < end, f"the job is still {store.get(job_id).state}"
        time.sleep(0.005)


def test_stage_times_and_memory_are_told(store: JobStore, tmp_path: Path, new_job: NewJobs) -> None:
    new = new_job(task=Task("slow 0.05", 1, 64, 64, 4))
    store.submit(new)
    worker = Worker(store, Storage(f"file://{tmp_path}"), FakeDrawer(), LIMITS, "w1")
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        until(store, new.id, State.READY)
        end = time.monotonic() + 10
        while (row := Register(store.database).list()[0]).memory_bytes is None:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert row.memory_bytes > 2**20
    finally:
        worker.stop()
        thread.join()
    found = {(name, labels.get("stage", "")): value for name, labels, value in tallies.read(store.database)}
    assert 0.2 <= found["licht_stage_seconds", "denoise"] < 5
    assert found["licht_stages", "denoise"] == 1
    assert found["licht_steps", ""] == 4


def test_a_step_that_outlasts_the_draining_is_given_up(store: JobStore, tmp_path: Path, new_job: NewJobs) -> None:
    new = new_job(task=Task("slow 2", 1, 64, 64, 1))
    store.submit(new)
    overdue = threading.Event()
    storage = Storage(f"file://{tmp_path}")
    worker = Worker(store, storage, FakeDrawer(), LIMITS, "w1", on_overdue=overdue.set)
    thread = threading.Thread(target=worker.run)
    thread.start()
    until(store, new.id, State.RUNNING)
    started = time.monotonic()
    worker.stop()
    assert overdue.wait(10)
    assert time.monotonic() - started < 1.5
    job = store.get(new.id)
    assert (job.state, job.failures, job.deaths) == (State.QUEUED, 0, 0)
    thread.join()
    assert store.get(new.id).state is State.QUEUED


def test_a_stage_clock_leaves_nothing_out() -> None:
    clock, begun = StageClock(), time.perf_counter()
    for stage in ("encode_prompt", "denoise", "denoise"):
        time.sleep(0.01)
        clock.note(stage)
    seconds = clock.seconds("release")
    assert seconds["denoise"] > seconds["encode_prompt"]
    assert sum(seconds.values()) == pytest.approx(time.perf_counter() - begun, abs=0.005)
