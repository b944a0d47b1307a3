import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from licht.core.errors import InvalidImage, NotAvailable
from licht.core.request import ImageRequest
from licht.service.database.connect import Database
from licht.service.queue.looks import Answer, Looks, sealed
from licht.service.queue.records import State, Task
from licht.service.queue.store import JobStore
from licht.service.storage import Storage
from licht.service.worker.drawing import Events, Manner
from licht.service.worker.looking import Looker
from licht.service.worker.loop import Worker, WorkerLimits
from tests.service.conftest import NewJobs
from tests.service.fakes import FakeDrawer

WAIT_S = 30.0


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path / 'blobs'}")


def examine(data: bytes) -> Mapping[str, Any]:
    errors: dict[bytes, Exception] = {
        b"torn": InvalidImage("the picture is damaged"),
        b"shut": NotAvailable("the key file of the operator is not there"),
        b"defect": ZeroDivisionError("secret"),
    }
    if data in errors:
        raise errors[data]
    return {"bytes": len(data)}


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"file", Answer(report={"bytes": 4})),
        (b"torn", Answer(error_code="invalid_image", error="the picture is damaged")),
        (b"shut", Answer(error_code="not_available", error="pictures cannot be looked at here at the moment")),
        (b"defect", Answer(error_code="internal_error", error="the picture could not be looked at")),
    ],
)
def test_what_a_caller_hears(database: Database, storage: Storage, data: bytes, answer: Answer) -> None:
    looks = Looks(database, WAIT_S, lease_s=10)
    asked = looks.submit(None, storage.put(sealed(data)), most=1)
    looker = Looker(looks, storage, examine, "one")
    assert looker.look_once()
    assert not looker.look_once()
    assert (looks.answer(asked), looker.busy_s) == (answer, 0.0)


class Held(FakeDrawer):
    """Stays in its first step of a job until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.drawing, self.go_on = threading.Event(), threading.Event()

    def draw(self, request: ImageRequest, manner: Manner) -> Events:
        for event in super().draw(request, manner):
            yield event
            if request.prompt == "held":
                self.drawing.set()
                assert self.go_on.wait(WAIT_S)


def test_a_worker_looks_while_it_draws(database: Database, storage: Storage, new_job: NewJobs) -> None:
    looks, store, drawer = Looks(database, WAIT_S, lease_s=10), JobStore(database), Held()
    limits = WorkerLimits(heartbeat_s=0.05, idle_s=0.05, look_s=0.005)
    looker = Looker(looks, storage, examine, "both", idle_s=0.05)
    worker = Worker(store, storage, drawer, limits, "both", looker=looker)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        store.submit(new := new_job(task=Task("held", 1, 64, 64)))
        assert drawer.drawing.wait(WAIT_S)
        asked = looks.submit(None, storage.put(sealed(b"file")), most=1)
        end = time.monotonic() + WAIT_S
        while looks.answer(asked) is None:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert looks.answer(asked) == Answer(report={"bytes": 4})
        assert store.get(new.id).state is State.RUNNING
    finally:
        drawer.go_on.set()
        worker.stop()
        thread.join()


def test_a_worker_whose_look_hangs_ends_itself(database: Database, storage: Storage) -> None:
    ended, held = threading.Event(), threading.Event()

    def hang(data: bytes) -> Mapping[str, Any]:
        held.wait(WAIT_S)
        return {"bytes": len(data)}

    looks = Looks(database, WAIT_S, lease_s=10)
    limits = WorkerLimits(heartbeat_s=0.02, idle_s=0.05, stall_s=0.2)
    looker = Looker(looks, storage, hang, "stuck", idle_s=0.05)
    worker = Worker(JobStore(database), storage, FakeDrawer(), limits, "stuck", on_stall=ended.set, looker=looker)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        looks.submit(None, storage.put(sealed(b"file")), most=1)
        assert ended.wait(WAIT_S)
    finally:
        held.set()
        worker.stop()
        thread.join()
