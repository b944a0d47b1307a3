"""Models from the Hugging Face hub: what a download would be, checked before it begins, and the download itself.

A download lands in a hidden folder beside the models and gets its name when it is complete, so that what has a name
can be used. What was there of a broken download is not fetched again.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from licht.checkpoint.reader import first_line
from licht.core.errors import EndpointFailed, InvalidRequest, NotAvailable, NotPermitted, OutputFailed, UnknownModel
from licht.model.variants import VARIANTS, Variant

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from huggingface_hub import HfApi

SOURCE_FILE: Final = "licht-source.json"
"""Written into a downloaded folder: where it came from, and which licence was acknowledged."""
FREE_LICENCE: Final = "Apache-2.0"
_WANTED: Final = ("model_index.json", "transformer/*", "vae/*", "text_encoder/*", "tokenizer/*", "LICENSE*")
_PARTS: Final = ("transformer", "vae", "text_encoder", "tokenizer")
_PART: Final = ".part"
_SPARE_BYTES: Final = 256 * 2**20


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository; the hub knows the SHA-256 of large ones."""

    path: str
    size_bytes: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a download is: from where, under which licence, how large, and whether there is room."""

    name: str
    repository: str
    revision: str
    licence: str
    declared_licence: str | None
    gated: bool
    files: tuple[RemoteFile, ...]
    present_bytes: int
    free_bytes: int
    folder: Path

    @property
    def size_bytes(self) -> int:
        """All that the model takes on the disk."""
        return sum(file.size_bytes for file in self.files)

    @property
    def missing_bytes(self) -> int:
        """What is still to be fetched."""
        return max(self.size_bytes - self.present_bytes, 0)

    @property
    def needs_acknowledgement(self) -> bool:
        """Whether the licence restricts what the pictures may be used for."""
        return self.licence != FREE_LICENCE


def preflight(name: str, models: Path, token: str | None = None) -> Preflight:
    """Ask the hub what a download of the official model `name` would be.

    Raises `UnknownModel`, `NotPermitted` for a gated repository without access, `EndpointFailed` if the hub cannot be
    reached or answers with something else.
    """
    variant = _official(name)
    repository = str(variant.repository)
    with _hub_errors(repository):
        found = _hub(token).model_info(repository, files_metadata=True)
    files = tuple(
        RemoteFile(sibling.rfilename, int(sibling.size or 0), sibling.lfs.sha256 if sibling.lfs else None)
        for sibling in found.siblings or ()
        if any(fnmatch(sibling.rfilename, pattern) for pattern in _WANTED) and ".." not in sibling.rfilename
    )
    lacking = [part for part in _PARTS if not any(file.path.startswith(f"{part}/") for file in files)]
    if lacking or not found.sha:
        raise EndpointFailed(
            f"{repository} has no {', '.join(lacking) or 'revision'}; expected a folder in the diffusers layout",
            field="name",
        )
    folder = models / variant.name
    card: Any = found.card_data
    return Preflight(
        name=variant.name,
        repository=repository,
        revision=found.sha,
        licence=variant.licence,
        declared_licence=getattr(card, "license_name", None) or getattr(card, "license", None),
        gated=bool(found.gated),
        files=files,
        present_bytes=_bytes_below(_partial(folder)),
        free_bytes=_free_bytes(models),
        folder=folder,
    )


def check_room(planned: Preflight) -> None:
    """Raise `NotAvailable` if the disk has no room for what is missing."""
    if planned.missing_bytes + _SPARE_BYTES > planned.free_bytes:
        raise NotAvailable(
            f"{planned.name} still needs {gigabytes(planned.missing_bytes)}, {planned.folder.parent} has "
            f"{gigabytes(planned.free_bytes)} free; make room, or choose another disk with LICHT_MODELS",
            field="name",
        )


def check_licence(planned: Preflight, accepted: bool) -> None:
    """Raise `NotPermitted` if the licence has to be acknowledged and was not."""
    if planned.needs_acknowledgement and not accepted:
        raise NotPermitted(
            f"{planned.name} is under the licence {planned.licence}, which allows no commercial use; read it at "
            f"{_page(planned.repository)} and pass --accept-licence if you agree",
            field="accept_licence",
        )


def download(planned: Preflight, arrived: Callable[[str, int], None], token: str | None = None) -> Path:
    """Fetch what is missing and give the finished folder its name.

    `arrived` is told the file and how many of its bytes are here. A file that broke off is continued, also by another
    run. Raises `NotPermitted`, `EndpointFailed`, `OutputFailed`, `InvalidRequest`.
    """
    if planned.folder.exists():
        raise InvalidRequest(f"{planned.folder} exists; remove it to fetch {planned.name} again", field="name")
    begun = _partial(planned.folder)
    with _disk_errors(planned.folder.parent):
        begun.mkdir(parents=True, exist_ok=True)
        if _begun_revision(begun) != planned.revision:
            _drop_others(begun, planned.files)
            _say_source(begun, planned)
        for wanted in planned.files:
            path = begun / wanted.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                _fetch(planned, wanted, path, arrived, token)
            arrived(wanted.path, wanted.size_bytes)
        _say_source(begun, planned)
        begun.rename(planned.folder)
    return planned.folder


def _say_source(folder: Path, planned: Preflight) -> None:
    source = {
        "repository": planned.repository,
        "revision": planned.revision,
        "licence": planned.licence,
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    (folder / SOURCE_FILE).write_text(json.dumps(source, indent=1) + "\n", encoding="utf-8")


def _begun_revision(begun: Path) -> str | None:
    """Which revision of the repository a broken download was of; None if it does not say."""
    try:
        revision = json.loads((begun / SOURCE_FILE).read_text("utf-8"))["revision"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return str(revision)


def _drop_others(begun: Path, files: Sequence[RemoteFile]) -> None:
    """Remove what may be of another revision: all but the files whose size and hash are the wanted ones.

    A file without a hash is small and fetched again. A large one that broke off is checked when it is complete.
    """
    hashes = {file.path: file.sha256 for file in files if file.sha256 is not None}
    for path in [path for path in begun.rglob("*") if path.is_file()]:
        name = path.relative_to(begun).as_posix()
        if name.removesuffix(_PART) not in hashes or (path.suffix != _PART and _sha256(path) != hashes[name]):
            path.unlink()


def _fetch(
    planned: Preflight, wanted: RemoteFile, path: Path, arrived: Callable[[str, int], None], token: str | None
) -> None:
    """One file: it gets its name when its size, and where the hub tells it its hash, are right."""
    # the library's own `hf_hub_download` does not continue a file that another process has begun
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    part = path.with_name(path.name + _PART)
    mode = "r+b" if part.exists() else "w+b"
    with _Watched(part, mode, partial(arrived, wanted.path)) as file, _hub_errors(planned.repository):
        here = file.seek(0, os.SEEK_END)
        if here > wanted.size_bytes:
            here = file.truncate(file.seek(0))
        address = hf_hub_url(planned.repository, wanted.path, revision=planned.revision)
        location = get_hf_file_metadata(address, token=token).location
        headers = build_hf_headers(token=token, library_name="licht")
        if urlsplit(location).netloc != urlsplit(address).netloc:
            headers.pop("authorization", None)  # a delivery network has no business with the token
        http_get(location, file, resume_size=here, headers=headers, expected_size=wanted.size_bytes)
        os.fsync(file.fileno())
    if part.stat().st_size != wanted.size_bytes or (wanted.sha256 and _sha256(part) != wanted.sha256):
        part.unlink()
        raise EndpointFailed(f"{wanted.path} has arrived damaged and was removed; run the same command again")
    part.rename(path)


class _Watched(io.FileIO):
    """A file that tells how large it has become."""

    def __init__(self, path: Path, mode: str, told: Callable[[int], None]) -> None:
        super().__init__(path, mode)
        self._told = told

    def write(self, data: "ReadableBuffer", /) -> int:
        written = super().write(data)
        self._told(self.tell())
        return written


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def gigabytes(size_bytes: int) -> str:
    """A size for people, in GB of 10^9 bytes; small ones in MB."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 10**8 else f"{size_bytes / 1e6:.1f} MB"


def _official(name: str) -> Variant:
    key = name.lower().removeprefix("flux.2-")
    if key not in VARIANTS:
        names = ", ".join(VARIANTS)
        raise UnknownModel(f"there is no official model {name!r}; choose one of {names}", field="name")
    return VARIANTS[key]


def _hub(token: str | None) -> "HfApi":
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # we show our own
    return HfApi(token=token, library_name="licht")


def _partial(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.part")


def _page(repository: str) -> str:
    return f"https://huggingface.co/{repository}"


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _free_bytes(folder: Path) -> int:
    """Free space where `folder` is, or will be."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputFailed(
            f"{folder} cannot be written ({error.strerror or first_line(error)}); make room, then run the command again"
        ) from error


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """The library's errors as ours, one line each; those of the disk pass through."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    where = os.environ.get("HF_ENDPOINT", "huggingface.co")
    try:
        yield
    except GatedRepoError as error:
        raise NotPermitted(
            f"{repository} is gated: accept its terms at {_page(repository)}, then set HF_TOKEN to a token of yours"
        ) from error
    except RepositoryNotFoundError as error:
        raise EndpointFailed(
            f"{where} has no {repository}, or only with a token; set HF_TOKEN if it is yours"
        ) from error
    except OfflineModeIsEnabled as error:
        raise NotAvailable("downloads are switched off by HF_HUB_OFFLINE; unset it and try again") from error
    except (HfHubHTTPError, EntryNotFoundError) as error:
        raise _undelivered(repository, error) from error
    except OSError:
        raise  # the disk's
    except Exception as error:  # the library has changed its HTTP client before, and hands out that client's errors
        raise _undelivered(repository, error) from error


def _undelivered(repository: str, error: Exception) -> EndpointFailed:
    where = os.environ.get("HF_ENDPOINT", "huggingface.co")
    return EndpointFailed(
        f"{where} did not deliver {repository} ({first_line(error)}); check the connection; what has arrived is kept"
    )
