import pytest

from licht.core.errors import LeaseLost, NotAvailable, TooManyJobs, UnknownJob
from licht.service.database.connect import Database
from licht.service.database.files import needed_files
from licht.service.queue.looks import Answer, Looks
from licht.service.queue.register import Register
from tests.service.conftest import Clock

FILE = "ab" * 32


@pytest.fixture
def looks(database: Database, clock: Clock) -> Looks:
    register = Register(database, clock)
    for name in ("one", "two", "three"):
        register.enter(name, "fake", "Apache-2.0")
    return Looks(database, wait_s=60, lease_s=10, clock=clock)


def test_from_the_question_to_the_answer(looks: Looks, key_id: str) -> None:
    asked = looks.submit(key_id, FILE, most=2)
    assert looks.answer(asked) is None
    look = looks.claim("one")
    assert look is not None
    assert (look.id, look.digest, look.attempt) == (asked, FILE, 1)
    assert looks.claim("two") is None
    looks.finish(look, Answer(report={"known": None}))
    assert looks.answer(asked) == Answer(report={"known": None})
    looks.drop(asked)
    with pytest.raises(UnknownJob):
        looks.answer(asked)


def test_as_long_as_a_look_waits_its_file_is_needed(looks: Looks, database: Database) -> None:
    asked = looks.submit(None, FILE, most=1)
    with database.read() as connection:
        assert needed_files(connection, [FILE]) == {FILE}
    looks.drop(asked)
    with database.read() as connection:
        assert needed_files(connection, [FILE]) == set()


def test_so_many_at_a_time(looks: Looks, key_id: str, clock: Clock) -> None:
    looks.submit(None, FILE, most=24)
    with pytest.raises(NotAvailable, match="another picture"):
        looks.submit(None, FILE, most=24)
    first = looks.submit(key_id, FILE, most=2)
    looks.submit(key_id, FILE, most=2)
    with pytest.raises(TooManyJobs):
        looks.submit(key_id, FILE, most=2)
    looks.drop(first)
    looks.submit(key_id, FILE, most=2)
    clock.now += 61
    looks.submit(None, FILE, most=24)


def test_what_nobody_waits_for_any_more_is_not_looked_at(looks: Looks, clock: Clock) -> None:
    looks.submit(None, FILE, most=1)
    clock.now += 61
    assert looks.claim("one") is None
    assert looks.drop_older(60) == 1


def test_a_worker_that_comes_back_too_late_tells_nothing(looks: Looks, database: Database, clock: Clock) -> None:
    asked = looks.submit(None, FILE, most=1)
    lost = looks.claim("one")
    assert lost is not None
    assert looks.reap() == 0
    Register(database, clock).leave("one")
    assert looks.reap() == 1
    again = looks.claim("two")
    assert again is not None
    with pytest.raises(LeaseLost):
        looks.finish(lost, Answer(report={}))
    looks.finish(again, Answer(report={"known": None}))
    assert looks.answer(asked) == Answer(report={"known": None})


def test_a_file_that_kills_workers_is_given_up(looks: Looks, clock: Clock) -> None:
    asked = looks.submit(None, FILE, most=1)
    for name in ("one", "two"):
        assert looks.claim(name) is not None
        clock.now += 11
        assert looks.reap() == 1
    assert looks.claim("three") is None
    answer = looks.answer(asked)
    assert answer is not None
    assert answer.error_code == "worker_died"
