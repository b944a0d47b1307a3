import threading
import time

from licht.service.database.connect import Database
from licht.service.queue.store import JobStore
from licht.service.queue.wake import Waker
from tests.service.conftest import PATIENCE_S, NewJobs


def test_a_new_job_wakes_whoever_waits(store: JobStore, new_job: NewJobs, database: Database) -> None:
    new = new_job()
    with Waker(database) as waker:
        waker.wait(0.1)
        started = time.monotonic()
        assert waker.wait(0.1) is False
        assert time.monotonic() - started > 0.08
        timer = threading.Timer(0.2, store.submit, [new])
        timer.start()
        started = time.monotonic()
        assert waker.wait(PATIENCE_S) is True
        assert time.monotonic() - started < PATIENCE_S / 2
        timer.join()
    assert store.leases.claim("w") is not None
