import copy
import hashlib
import os
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from licht.core.errors import InvalidSettings, NotAvailable, OutputFailed
from licht.core.request import Picture
from licht.service.storage import Storage


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of an S3 server on this machine."""
    moto_server = pytest.importorskip("moto.server", reason="moto, the S3 server of these tests, is not installed")
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "tests")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["file", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "s3":
        endpoint: str = request.getfixturevalue("s3")
        bucket = f"b{uuid.uuid4().hex}"
        httpx.put(f"{endpoint}/{bucket}", trust_env=False).raise_for_status()
        return Storage(f"s3://{bucket}/pictures", endpoint)
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


def test_what_lies_there_is_told(storage: Storage) -> None:
    assert storage.files() == []
    assert storage.size_bytes() == 0
    digests = {storage.put(data): len(data) for data in (b"one", b"three")}
    found = storage.files()
    assert {each.digest: each.bytes for each in found} == digests
    assert all(abs(each.modified_at - time.time()) < 60 for each in found)
    assert storage.file_bytes(min(digests)) == digests[min(digests)]
    storage.delete_stored(found[0])
    assert [each.digest for each in storage.files()] == [found[1].digest]
    assert storage.file_bytes("0" * 64) == 0


def test_an_old_file_that_is_stored_again_is_young_again(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}")
    digest = storage.put(b"hello")
    path = tmp_path / digest[:2] / digest[2:]
    os.utime(path, (1, 1))
    assert storage.put(b"hello") == digest
    assert time.time() - path.stat().st_mtime < 60


def test_several_who_store_the_same(storage: Storage) -> None:
    other = copy.copy(storage)
    first = storage.put(b"hello")
    other.delete(first)
    assert not storage.has(first)
    assert storage.put(b"hello") == other.put(b"hello")
    assert other.get(first) == b"hello"


def test_a_storage_that_is_away_is_one_clear_error(s3: str) -> None:
    del s3
    away = Storage("s3://bucket/x", "http://127.0.0.1:1")
    digest = "0" * 64
    for call in (lambda: away.get(digest), lambda: away.has(digest), away.files, lambda: away.delete(digest)):
        with pytest.raises(NotAvailable, match="does not answer"):
            call()
    with pytest.raises(OutputFailed, match="takes no more files"):
        away.put(b"x")
