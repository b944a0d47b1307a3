"""Files by the hash of what is in them: written whole or not at all, read back checked, on any fsspec file system."""

import hashlib
import os
import re
import secrets
import zlib
from pathlib import Path
from typing import Any, Final

import fsspec
from fsspec.implementations.local import LocalFileSystem

from licht.core.errors import InvalidSettings, NotAvailable, OutputFailed
from licht.core.request import Picture

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_PICTURE: Final = b"LICHT1"
_HEADER_BYTES: Final = len(_PICTURE) + 8


class Storage:
    """The stored files of one service."""

    def __init__(self, url: str) -> None:
        """Use the fsspec address `url`. Raises `InvalidSettings` for one that cannot be used."""
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise InvalidSettings(
                f"storage.url {url!r} cannot be used ({error}); use a folder or an address that fsspec knows",
                field="storage.url",
            ) from error
        self._local = isinstance(self._files, LocalFileSystem)

    def put(self, data: bytes) -> str:
        """Store `data`; returns its SHA-256. On a local disk it is synced before this returns. Raises `OutputFailed`."""
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        try:
            if self._files.exists(path):
                return digest
            if self._local:
                _write(Path(path), data)
            else:
                self._files.pipe_file(path, data)
        except OSError as error:
            raise OutputFailed(f"the storage takes no more files ({error.strerror or 'it does not answer'})") from error
        return digest

    def get(self, digest: str) -> bytes:
        """The file with that SHA-256. Raises `NotAvailable` if it is gone or damaged."""
        try:
            data: bytes = self._files.cat_file(self._path(digest))
        except FileNotFoundError as error:
            raise NotAvailable("the file is not stored any more; it was deleted or has expired") from error
        except OSError as error:
            raise NotAvailable("the storage does not answer; try again in a moment") from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise NotAvailable("the stored file is damaged; restore it from a backup or draw it again")
        return data

    def has(self, digest: str) -> bool:
        """Whether the file is there."""
        found: bool = self._files.exists(self._path(digest))
        return found

    def delete(self, digest: str) -> None:
        """Remove the file; one that is gone already is no error."""
        try:
            self._files.rm_file(self._path(digest))
        except FileNotFoundError:
            return

    def size_bytes(self) -> int:
        """How much all files take."""
        found: dict[str, Any] = self._files.find(self._root, detail=True)
        return sum(int(each["size"]) for each in found.values())

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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
