import hashlib
import stat
from pathlib import Path

import pytest

from licht.core.errors import InvalidSettings, NotAvailable, OutputFailed
from licht.core.request import Picture
from licht.service.storage import Storage


@pytest.fixture(params=["file", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(f"file://{tmp_path}/blobs" if request.param == "file" else f"memory://{tmp_path.name}")


def test_what_is_put_can_be_got_and_deleted(storage: Storage) -> None:
    digest = storage.put(b"hello")
    assert digest == hashlib.sha256(b"hello").hexdigest() == storage.put(b"hello")
    assert storage.get(digest) == b"hello"
    assert storage.size_bytes() == 5
    assert storage.has(digest)
    storage.delete(digest)
    storage.delete(digest)
    assert not storage.has(digest)
    with pytest.raises(NotAvailable, match="not stored any more"):
        storage.get(digest)


def test_pictures_come_back_as_they_were(storage: Storage) -> None:
    picture = Picture(3, 2, bytes(range(18)))
    assert storage.get_picture(storage.put_picture(picture)) == picture
    with pytest.raises(NotAvailable, match="no input picture"):
        storage.get_picture(storage.put(b"something else"))


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n", "a" * 65])
def test_only_hashes_are_names(storage: Storage, digest: str) -> None:
    for call in (storage.get, storage.has, storage.delete):
        with pytest.raises(NotAvailable, match="no such file"):
            call(digest)


def test_damage_is_noticed(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}")
    digest = storage.put(b"hello")
    (tmp_path / digest[:2] / digest[2:]).write_bytes(b"hellO")
    with pytest.raises(NotAvailable, match="damaged"):
        storage.get(digest)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(f"file://{tmp_path}")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputFailed, match="No space left"):
        storage.put(b"hello")
    assert not [path for path in tmp_path.rglob("*") if stat.S_ISREG(path.stat().st_mode)]


def test_an_unknown_file_system_is_a_mistake_in_the_settings() -> None:
    with pytest.raises(InvalidSettings, match="cannot be used"):
        Storage("nonsense://bucket")
