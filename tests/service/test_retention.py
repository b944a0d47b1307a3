"""What goes and what stays, on both databases; and that what was deleted is nowhere any more."""

import os
import time
from pathlib import Path

import pytest
from sqlalchemy import insert, make_url

from licht.core.request import Picture
from licht.service.database.connect import Database
from licht.service.database.files import needed_files
from licht.service.database.tables import FAVOURITES, METADATA, METERING, UPLOADS
from licht.service.queue.records import Input, Outcome, State, Task
from licht.service.queue.store import JobStore
from licht.service.retention import DAY_S, Removed, Retention
from licht.service.storage import Storage
from tests.service.conftest import Clock, NewJobs

SECRET = "a prompt that nobody is to read again"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path / 'blobs'}")


def drawn(store: JobStore, storage: Storage, new_job: NewJobs, data: bytes, **task: object) -> str:
    """A job that has ended with a picture of these bytes."""
    new = new_job(task=Task(SECRET, 1, 64, 64, **task))  # type: ignore[arg-type]
    store.submit(new)
    claim = store.leases.claim("w")
    assert claim is not None
    digest = storage.put(data)
    store.leases.finish(claim, Outcome(State.READY, result={"blob": digest}, blobs=(digest,)))
    return new.id


def retention(store: JobStore, storage: Storage, clock: Clock, keep_bytes: int | None = None) -> Retention:
    return Retention(store, storage, clock, keep_days=30, keep_bytes=keep_bytes)


def favour(database: Database, job_id: str) -> None:
    with database.write() as connection:
        connection.execute(insert(FAVOURITES), {"job_id": job_id, "at": 1.0})


def test_by_age(store: JobStore, storage: Storage, new_job: NewJobs, clock: Clock, database: Database) -> None:
    reference = storage.put_picture(Picture(2, 2, bytes(12)))
    uploaded = storage.put_picture(Picture(2, 2, bytes(range(12))))
    inputs = (Input(reference, "image 1"), Input(uploaded, "image 2"))
    old = drawn(store, storage, new_job, b"old", inputs=inputs)
    loved = drawn(store, storage, new_job, b"loved")
    favour(database, loved)
    with database.write() as connection:
        row = {"key_id": store.get(old).key_id, "digest": uploaded, "name": "n", "width": 2, "height": 2}
        connection.execute(insert(UPLOADS), {**row, "created_at": 1.0})
    clock.now += 29 * DAY_S
    young = drawn(store, storage, new_job, b"young")
    waiting = new_job()
    store.submit(waiting)
    clock.now += 2 * DAY_S
    removed = retention(store, storage, clock).run()
    assert removed.jobs == 1
    assert {each.digest for each in storage.files()} == {
        *(storage.put(data) for data in (b"loved", b"young")),
        uploaded,
    }
    assert [store.get(job).state for job in (loved, young, waiting.id)] == [State.READY, State.READY, State.QUEUED]
    with database.read() as connection:
        assert len(connection.execute(METERING.select()).all()) == 3
    assert retention(store, storage, clock).run() == Removed()


def test_by_size_the_oldest_go_first_and_favourites_last(
    store: JobStore, storage: Storage, new_job: NewJobs, clock: Clock, database: Database
) -> None:
    jobs = []
    for number in range(5):
        jobs.append(drawn(store, storage, new_job, bytes([number]) * 1000))
        clock.now += 1
    favour(database, jobs[0])
    assert retention(store, storage, clock, keep_bytes=5000).run() == Removed()
    assert retention(store, storage, clock, keep_bytes=3500).run() == Removed(2, 2, 2000)
    assert {job.id for job in store.recent(store.get(jobs[0]).key_id)} == {jobs[0], jobs[3], jobs[4]}
    assert retention(store, storage, clock, keep_bytes=500).run() == Removed(3, 3, 3000)
    assert storage.size_bytes() == 0


def test_files_that_no_row_needs_go_after_a_while(
    store: JobStore, storage: Storage, new_job: NewJobs, tmp_path: Path
) -> None:
    """What a worker wrote before it died. Only real time counts here: files have no other."""
    needed = drawn(store, storage, new_job, b"needed")
    left, fresh = storage.put(b"left behind"), storage.put(b"on the way")
    part = tmp_path / "blobs" / left[:2] / ".0123.part"
    part.write_bytes(b"half")
    for path in (tmp_path / "blobs" / left[:2] / left[2:], part):
        os.utime(path, (1, 1))
    for path in (tmp_path / "blobs").rglob("*"):
        if path.is_file() and path.read_bytes() == b"needed":
            os.utime(path, (1, 1))
    now = Clock()
    now.now = time.time()
    removed = Retention(store, storage, now, keep_days=30_000, keep_bytes=None).run()
    assert removed == Removed(0, 2, len(b"left behind") + len(b"half"))
    assert {each.digest for each in storage.files()} == {fresh, storage.put(b"needed")}
    assert store.get(needed).state is State.READY


def test_what_is_deleted_is_nowhere_any_more(
    store: JobStore, storage: Storage, new_job: NewJobs, clock: Clock, database: Database
) -> None:
    if not database.is_sqlite:
        pytest.skip("PostgreSQL's files are its own; VACUUM sees to them")
    job = drawn(store, storage, new_job, b"picture")
    file = Path(make_url(database.url).database or "")
    clock.now += 31 * DAY_S
    retention(store, storage, clock).run()
    with pytest.raises(Exception, match="no such job"):
        store.get(job)
    left = b"".join(path.read_bytes() for path in file.parent.glob(f"{file.name}*"))
    assert len(left) > 4096
    assert SECRET.encode() not in left


def test_every_column_called_digest_keeps_its_file(database: Database) -> None:
    tables = {table.name for table in METADATA.sorted_tables if "digest" in table.c}
    assert {"blobs", "uploads"} <= tables
    with database.read() as connection:
        assert needed_files(connection, [f"{number:064x}" for number in range(1200)]) == set()
