"""Workers as actors: the fleet's own logic against a stand-in for Ray, and all of it in a real local cluster."""

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from licht.core.errors import InvalidSettings, NotAvailable
from licht.service import ray as fleets
from licht.service.database.connect import Database
from licht.service.queue.records import QueueLimits, State
from licht.service.queue.register import Register
from licht.service.queue.store import JobStore
from licht.service.ray import Fleet, FleetChoice, Runs
from licht.service.storage import Storage
from licht.service.worker.loop import Worker, WorkerLimits
from tests.service.conftest import PATIENCE_S, NewJobs
from tests.service.fakes import FakeDrawer
from tests.support.processes import PYTHONPATH


class Died(Exception):
    """What the stand-in raises where Ray says that an actor is gone."""


@dataclass
class Scripted:
    """A worker that does what the test has written down for it."""

    name: str
    fails: bool
    told: list[str]
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        self.told.append(f"run {self.name}")
        if self.fails:
            raise Died
        assert self.stopped.wait(PATIENCE_S)

    def stop(self) -> None:
        self.told.append(f"stop {self.name}")
        self.stopped.set()


class InThreads:
    """As much of Ray as a fleet uses: actors are objects, and their calls run in threads."""

    exceptions = SimpleNamespace(RayError=Died)

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.killed = 0

    def init(self, address: str, **options: object) -> None:
        del options
        if address != "auto":
            raise ConnectionError

    def remote(self, **options: object) -> Callable[[type], Any]:
        self.options = options

        def made(kind: type) -> Any:  # noqa: ANN401 - a stand-in for what Ray makes of a class
            def actor(*given: object) -> SimpleNamespace:
                built = kind(*given)
                return SimpleNamespace(
                    **{name: SimpleNamespace(remote=_call(getattr(built, name))) for name in ("run", "stop")}
                )

            return SimpleNamespace(remote=actor)

        return made

    def wait(self, calls: list[Future[None]], num_returns: int = 1, timeout: float = 0) -> tuple[list[Any], list[Any]]:
        del num_returns
        done, waiting = wait_for(calls, timeout=timeout)
        return list(done), list(waiting)

    def get(self, call: "Future[None]") -> None:
        call.result()

    def kill(self, actor: object) -> None:
        del actor
        self.killed += 1

    def shutdown(self) -> None:
        self.options["shut"] = True


def _call(method: Callable[[], None]) -> Callable[[], "Future[None]"]:
    def start() -> "Future[None]":
        future: Future[None] = Future()

        def run() -> None:
            try:
                method()
                future.set_result(None)
            except BaseException as error:  # noqa: BLE001 - as the other side of a process would tell it
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return future

    return start


def test_one_that_ends_is_started_again_until_all_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in, told, ended = InThreads(), list[str](), list[str]()
    monkeypatch.setattr(fleets, "_ray", lambda: stand_in)
    monkeypatch.setattr(fleets, "_LOOK_S", 0.01)

    def open_one(settings: Mapping[str, Any], name: str) -> Runs:
        assert settings == {"data": "d"}
        return Scripted(name, name == "w-2", told)

    fleet = Fleet(FleetChoice("auto", 2, gpus=1.0), open_one, {"data": "d"}, ended.append)
    thread = threading.Thread(target=fleet.run, args=("w", PATIENCE_S))
    thread.start()
    end = time.monotonic() + PATIENCE_S
    while "run w-3" not in told or "w-2" not in ended:
        assert time.monotonic() < end
        time.sleep(0.01)
    fleet.stop()
    thread.join()
    assert (stand_in.options["num_gpus"], stand_in.options["shut"], stand_in.killed) == (1.0, True, 3)
    assert sorted(told) == ["run w-1", "run w-2", "run w-3", "stop w-1", "stop w-3"]
    assert ended == ["w-2", "w-1", "w-3"]


def test_no_cluster_and_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(settings: Mapping[str, Any], name: str) -> Runs:
        raise AssertionError(settings, name)

    with monkeypatch.context() as patched:
        patched.setattr(fleets, "_ray", InThreads)
        with pytest.raises(NotAvailable, match="no Ray cluster answers"):
            Fleet(FleetChoice("elsewhere:1", 1, 1.0), nothing, {}, print)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvalidSettings, match=r"lichtung\[ray\]"):
        Fleet(FleetChoice("auto", 1, 1.0), nothing, {}, print)


def open_fake_worker(settings: Mapping[str, Any], name: str) -> Worker:
    """For a process of the cluster."""
    database = Database(settings["database"])
    limits = WorkerLimits(heartbeat_s=0.2, idle_s=0.1)
    return Worker(JobStore(database), Storage(settings["storage"]), FakeDrawer(), limits, name)


@pytest.mark.slow
def test_jobs_are_drawn_in_a_cluster(
    postgres: str, tmp_path: Path, new_job: NewJobs, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="the test in a real cluster needs the package ray")
    if database.is_sqlite:
        pytest.skip("actors share a PostgreSQL")
    paths = (PYTHONPATH, os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    store = JobStore(database, QueueLimits(active_limit=100))
    jobs = [new_job() for _ in range(6)]
    store.submit(*jobs)
    told = {"database": postgres, "storage": f"file://{tmp_path / 'blobs'}"}
    fleet = Fleet(FleetChoice("local", 1, gpus=0.0, cpus=0.1), open_fake_worker, told, lambda name: None)
    thread = threading.Thread(target=fleet.run, args=("ray", PATIENCE_S))
    thread.start()
    try:
        # a cluster starts in seconds, or on a busy machine in minutes
        end = time.monotonic() + 10 * PATIENCE_S
        while any(store.get(job.id).state is not State.READY for job in jobs):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert [row.id for row in Register(database).list()] == ["ray-1"]
    finally:
        fleet.stop()
        thread.join()
    assert Register(database).list() == []
