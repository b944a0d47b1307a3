"""What the native routes stand on, on both databases: galleries, kept references, series, previews, forecasts."""

from dataclasses import replace

from sqlalchemy import Connection

from licht.service.database.connect import Database
from licht.service.gallery import Gallery, Search
from licht.service.keys import KeyStore
from licht.service.queue.forecast import Forecast
from licht.service.queue.previews import PreviewRow, Previews
from licht.service.queue.records import Input, Outcome, QueueLimits, State, Task
from licht.service.queue.register import About, Register
from licht.service.queue.store import JobStore
from licht.service.series import Frame, Series, SeriesStore
from licht.service.uploads import Uploads
from tests.service.conftest import Clock, NewJobs

DIGEST = "a" * 64
ABOUT = About(4, None, takes_guidance=False, max_references=4, width=1000, height=1000, fixed_s=1.0, step_s=2.0)


def finish(store: JobStore, clock: Clock, seconds: float = 1.0, blob: str = DIGEST) -> None:
    claim = store.leases.claim("w")
    assert claim is not None
    clock.now += seconds
    store.leases.finish(claim, Outcome(State.READY, {"blob": blob}, blobs=(blob,), steps=2))


def test_prompts_are_searched_as_text(store: JobStore, clock: Clock, key_id: str, new_job: NewJobs) -> None:
    gallery = Gallery(store.database, clock)
    ids = []
    for prompt in ('A "Blue" cube, 50 %', "ein Würfel", "a red_ball"):
        job = new_job(task=Task(prompt, 1, 64, 64))
        store.submit(job)
        finish(store, clock)
        ids.append(job.id)
        clock.now += 1
    for text, wanted in (('"blue"', [0]), ("würfel", [1]), ("_", [2]), ("%", [0]), ("prompt", []), ("", [2, 1, 0])):
        found = gallery.find(key_id, Search(text or None))
        assert [piece.job.id for piece in found] == [ids[number] for number in wanted], text
    assert gallery.mark(key_id, ids[1], favourite=True).favourite
    assert [piece.job.id for piece in gallery.find(key_id, Search(favourite=True))] == [ids[1]]
    newest = gallery.job_of_file(key_id, DIGEST)
    assert newest is not None
    assert gallery.job_of_file("other", DIGEST) is None
    store.delete(ids[1])
    assert gallery.find(key_id, Search(favourite=True)) == []


def test_previews_are_replaced_and_go_with_the_job(store: JobStore, clock: Clock, new_job: NewJobs) -> None:
    previews, job = Previews(store.database), new_job()
    store.submit(job)
    for step in (1, 2):
        previews.put(job.id, PreviewRow(step, 4, 8, 8, "image/png", bytes([step])))
    shown = previews.get(job.id)
    assert shown is not None
    assert (shown.step, shown.data, previews.get(job.id, after=2)) == (2, b"\x02", None)
    finish(store, clock)
    store.delete(job.id)
    assert previews.get(job.id) is None


def test_a_reference_is_kept_once_a_key(database: Database, clock: Clock, keys: KeyStore, key_id: str) -> None:
    uploads, other = Uploads(database, clock), keys.create("other").key.id
    kept, new = uploads.add(key_id, DIGEST, "anna", (100, 70))
    assert new
    assert uploads.add(key_id, DIGEST, "again", (100, 70)) == (kept, False)
    assert uploads.add(other, DIGEST, "mine", (100, 70))[1]
    assert [each.name for each in uploads.list(key_id)] == ["anna"]
    assert uploads.remove(key_id, DIGEST) is False
    assert uploads.remove(other, DIGEST) is True


def test_a_key_reads_what_its_jobs_have(
    store: JobStore, clock: Clock, keys: KeyStore, key_id: str, new_job: NewJobs
) -> None:
    uploads, other = Uploads(store.database, clock), keys.create("other").key.id
    store.submit(new_job(task=Task("a", 1, 64, 64, inputs=(Input(DIGEST, "image 1"),), start="b" * 64, mask="c" * 64)))
    assert [uploads.may_read(key_id, letter * 64) for letter in "abcd"] == [True, True, True, False]
    assert not uploads.may_read(other, DIGEST)


def test_a_series_is_written_with_its_jobs(store: JobStore, clock: Clock, key_id: str, new_job: NewJobs) -> None:
    kept, jobs = SeriesStore(store.database, clock), [new_job(), new_job()]
    frames = tuple(Frame(number, "a", job.id) for number, job in enumerate(jobs, start=1))
    made = Series("s1", key_id, "A walk", {"seed": 1}, clock.now, frames)

    def beside(connection: Connection) -> None:
        kept.add(connection, made)

    store.submit(*jobs, beside=beside)
    assert kept.get(key_id, "s1") == made
    assert kept.list(key_id) == [made]
    for _ in jobs:
        finish(store, clock)
    store.delete(jobs[0].id)
    assert [frame.job_id for frame in kept.get(key_id, "s1").frames] == [None, jobs[1].id]
    kept.remove(key_id, "s1")
    assert kept.list(key_id) == []
    assert store.get(jobs[1].id).state is State.READY


def test_what_was_removed_stays_for_the_jobs_of_before(
    store: JobStore, clock: Clock, key_id: str, new_job: NewJobs
) -> None:
    uploads = Uploads(store.database, clock)
    uploads.add(key_id, DIGEST, "anna", (100, 70))
    task = replace(new_job().task, inputs=(Input(DIGEST, "anna"),))
    before, after = new_job(task=task), new_job(task=task)
    store.submit(before)
    clock.now += 1
    assert uploads.remove(key_id, DIGEST) is False
    assert not uploads.may_read(key_id, DIGEST)
    assert uploads.forget() == ()
    clock.now += 1
    # the same pixels, sent once more by themselves
    store.submit(after)
    assert not uploads.may_read(key_id, DIGEST)
    store.cancel(before.id)
    assert uploads.forget() == ()
    assert uploads.may_read(key_id, DIGEST)
    store.cancel(after.id)
    assert store.delete(after.id) == [DIGEST]
    assert store.delete(before.id) == []


def test_forecasts_learn_from_what_was_measured(
    store: JobStore, limits: QueueLimits, clock: Clock, key_id: str, new_job: NewJobs
) -> None:
    forecast = Forecast(store.database, limits)
    at_first = forecast.rate(ABOUT, clock.now)
    assert (at_first.fixed_s, at_first.per_work_s, at_first.jobs) == (1.0, 2.0, 0)
    for megapixels in (1, 2):
        store.submit(new_job(output_px=megapixels * 1_000_000))
        finish(store, clock, seconds=1.0 + 3.0 * 2 * megapixels)
    learnt = forecast.rate(ABOUT, clock.now)
    assert (round(learnt.fixed_s, 6), round(learnt.per_work_s, 6), learnt.jobs) == (1.0, 3.0, 2)
    assert forecast.wait(key_id, learnt, 1) == (0.0, 0)
    store.submit(new_job(work=2.0), new_job(work=4.0))
    wait_s, ahead = forecast.wait(key_id, learnt, 2)
    assert (round(wait_s, 6), ahead) == ((1 + 6 + 1 + 12) / 2, 2)
    # what was measured long ago is no measure of today
    clock.now += 3 * 86400
    assert forecast.rate(ABOUT, clock.now).jobs == 0


def test_a_worker_tells_what_its_weights_are_like(database: Database, clock: Clock) -> None:
    register = Register(database, clock)
    register.enter("w", "nano", "Apache-2.0")
    assert register.list()[0].about is None
    register.ready("w", ABOUT)
    assert register.list()[0].about == ABOUT
