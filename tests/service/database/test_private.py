"""What the service writes is for its own user, under whatever umask it was started."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from licht.service import links
from licht.service.database.connect import Database
from licht.service.database.migrate import migrate
from licht.service.storage import Storage


@pytest.fixture
def careless() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("careless")
def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    data = tmp_path / "a" / "data"
    database = Database(f"sqlite:///{data / 'licht.sqlite3'}")
    migrate(database)
    with database.read():
        Storage(f"file://{data / 'blobs'}").put(b"a picture")
        links.secret_in(data)
        found = sorted(tmp_path.rglob("*"))
        assert {path.name for path in found} >= {"licht.sqlite3", "licht.sqlite3-wal", "licht.sqlite3-shm", "blobs"}
        for path in found:
            wanted = 0o700 if path.is_dir() else 0o600
            assert stat.S_IMODE(path.stat().st_mode) == wanted, path
    database.close()


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(0o750)
    Storage(f"file://{shared}").put(b"a picture")
    assert stat.S_IMODE(shared.stat().st_mode) == 0o750
