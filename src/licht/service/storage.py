"""Files by the hash of what is in them: written whole or not at all, read back checked, on any fsspec file system."""

import hashlib
import os
import re
import secrets
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import fsspec
from fsspec.implementations.local import LocalFileSystem

from licht.core.errors import InvalidSettings, NotAvailable, OutputFailed
from licht.core.request import Picture
from licht.service.database.private import make_folder, open_new

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_PICTURE: Final = b"LICHT1"
_HEADER_BYTES: Final = len(_PICTURE) + 8
GRACE_S: Final = 3600.0
"""A file that no row names is left alone for so long: its job may be on the way."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file as it lies there. `digest` is None for what is no whole file of ours; times in seconds since 1970."""

    path: str
    digest: str | None
    bytes: int
    modified_at: float


class Storage:
    """The stored files of one service."""

    def __init__(self, url: str, endpoint_url: str | None = None, clock: Callable[[], float] = time.time) -> None:
        """Use the fsspec address `url`; `endpoint_url` is where an S3-compatible server answers.

        Raises `InvalidSettings` for an address that cannot be used.
        """
        # several processes write: what one has listed before may be wrong by now
        options: dict[str, Any] = {"use_listings_cache": False}
        if endpoint_url is not None:
            options["endpoint_url"] = endpoint_url
        try:
            self._files, self._root = fsspec.core.url_to_fs(url, **options)
        except (ValueError, ImportError) as error:
            raise InvalidSettings(
                f"storage.url {url!r} cannot be used ({error}); use a folder or an address that fsspec knows",
                field="storage.url",
            ) from error
        self._local = isinstance(self._files, LocalFileSystem)
        self._clock = clock

    def put(self, data: bytes) -> str:
        """Store `data`; returns its SHA-256. On a local disk it is synced before this returns. Raises `OutputFailed`."""
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        try:
            if not self._kept(path):
                if self._local:
                    _write(Path(path), data)
                else:
                    self._files.pipe_file(path, data)
        except _failures() as error:
            reason = getattr(error, "strerror", None) or "it does not answer"
            raise OutputFailed(f"the storage takes no more files ({reason})") from error
        return digest

    def get(self, digest: str) -> bytes:
        """The file with that SHA-256. Raises `NotAvailable` if it is gone or damaged."""
        path = self._path(digest)
        with _answering():
            try:
                data: bytes = self._files.cat_file(path)
            except FileNotFoundError as error:
                raise NotAvailable("the file is not stored any more; it was deleted or has expired") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise NotAvailable("the stored file is damaged; restore it from a backup or draw it again")
        return data

    def has(self, digest: str) -> bool:
        """Whether the file is there. Raises `NotAvailable`."""
        path = self._path(digest)
        with _answering():
            return bool(self._files.exists(path))

    def delete(self, digest: str) -> None:
        """Remove the file; one that is gone already is no error. Raises `NotAvailable`."""
        self._delete(self._path(digest))

    def delete_stored(self, stored: Stored) -> None:
        """Remove what `files` has found."""
        self._delete(stored.path)

    def files(self) -> list[Stored]:
        """All that lies there, whatever it is. Raises `NotAvailable`."""
        with _answering():
            found: dict[str, Any] = self._files.find(self._root, detail=True)
        return [
            Stored(path, self._digest_of(path), int(each["size"]), _modified_at(each)) for path, each in found.items()
        ]

    def file_bytes(self, digest: str) -> int:
        """How much the file takes; 0 if it is gone."""
        path = self._path(digest)
        with _answering():
            try:
                return int(self._files.size(path) or 0)
            except FileNotFoundError:
                return 0

    def size_bytes(self) -> int:
        """How much all files take."""
        return sum(each.bytes for each in self.files())

    def _kept(self, path: str) -> bool:
        """Whether the file is there, and young enough not to be taken for one that nobody needs."""
        try:
            info: dict[str, Any] = self._files.info(path)
        except FileNotFoundError:
            return False
        if _modified_at(info) > self._clock() - GRACE_S / 2:
            return True
        if self._local:
            os.utime(path)
        return self._local

    def _delete(self, path: str) -> None:
        with _answering():
            try:
                self._files.rm_file(path)
            except FileNotFoundError:
                return

    def _digest_of(self, path: str) -> str | None:
        name = "".join(path.removeprefix(self._root).strip("/").split("/"))
        return name if _DIGEST.fullmatch(name) is not None else None

    def put_picture(self, picture: Picture) -> str:
        """Store decoded pixels: what a caller sent is never kept or handed on as it came."""
        sides = picture.width.to_bytes(4, "big") + picture.height.to_bytes(4, "big")
        return self.put(_PICTURE + sides + zlib.compress(picture.rgb, 1))

    def get_picture(self, digest: str) -> Picture:
        """Pixels that `put_picture` stored. Raises `NotAvailable`."""
        data = self.get(digest)
        if not data.startswith(_PICTURE):
            raise NotAvailable("the stored file is no input picture")
        width, height = (int.from_bytes(data[at : at + 4], "big") for at in (len(_PICTURE), len(_PICTURE) + 4))
        return Picture(width, height, zlib.decompress(data[_HEADER_BYTES:]))

    def _path(self, digest: str) -> str:
        if _DIGEST.fullmatch(digest) is None:
            raise NotAvailable("there is no such file")
        return f"{self._root}/{digest[:2]}/{digest[2:]}"


def _write(path: Path, data: bytes) -> None:
    make_folder(path.parent)
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open_new(temporary) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _modified_at(info: Mapping[str, Any]) -> float:
    """When a file was written, in whichever of fsspec's words."""
    for name in ("mtime", "LastModified", "created"):
        if name in info and info[name] is not None:
            value: Any = info[name]
            return float(value.timestamp()) if isinstance(value, datetime) else float(value)
    raise NotAvailable("the storage does not tell how old its files are; use a folder or S3")


def _failures() -> tuple[type[Exception], ...]:
    """What file systems raise; that of S3 has an error tree of its own, which is there only if it is in use."""
    botocore = sys.modules.get("botocore.exceptions")
    return (OSError,) if botocore is None else (OSError, botocore.BotoCoreError, botocore.ClientError)


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except _failures() as error:
        raise NotAvailable("the storage does not answer; try again in a moment") from error
