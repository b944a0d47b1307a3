"""What the door works with: keys, certificates, block-lists, classifiers, the audit file; loaded once, when needed."""

import contextlib
import datetime as dt
import hashlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import platformdirs

from licht.core.errors import InvalidSettings, NotAvailable

if TYPE_CHECKING:
    from licht.safety.certificates import Credentials
    from licht.safety.hashes import BlockList
    from licht.safety.image_filter import ImageFilter
    from licht.safety.provenance import Signer
    from licht.safety.watermark import Watermark

WATERMARK_FILE: Final = "watermark.key"
AUDIT_FILE: Final = "audit.jsonl"
_CHECKED_FILE: Final = "checked.json"
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Trust:
    """Where keys, certificates and lists are, and what backs the image filter.

    `folder` is made at first use: a private certificate chain and a watermark key. `chain` and `key` put certificates
    from elsewhere in their place. `training` is what manifests say about training: allowed, notAllowed, constrained.
    `image_filter` is an ONNX file or an HTTP address. `fail_closed` decides what a filter that fails means.
    """

    folder: Path
    chain: Path | None = None
    key: Path | None = None
    root: Path | None = None
    time_stamp_url: str | None = None
    training: str | None = None
    block_lists: tuple[Path, ...] = ()
    image_filter: str | None = None
    fail_closed: bool = True

    def __post_init__(self) -> None:
        if (self.chain is None) != (self.key is None):
            raise InvalidSettings("a signing certificate needs its key: set LICHT_SIGNING_CHAIN and LICHT_SIGNING_KEY")
        if self.training not in (None, "allowed", "notAllowed", "constrained"):
            raise InvalidSettings(f"LICHT_TRAINING is {self.training!r}; use allowed, notAllowed or constrained")


def trust_from_environment() -> Trust:
    """`LICHT_TRUST` and its kin; see docs/safety.md. Raises `InvalidSettings`."""

    def text(name: str) -> str | None:
        return os.environ.get(name) or None

    def path(name: str) -> Path | None:
        return Path(value) if (value := text(name)) else None

    failing = text("LICHT_FILTER_FAILURE") or "closed"
    if failing not in ("closed", "open"):
        raise InvalidSettings(f"LICHT_FILTER_FAILURE is {failing!r}; use closed or open")
    return Trust(
        folder=path("LICHT_TRUST") or platformdirs.user_data_path("licht") / "trust",
        chain=path("LICHT_SIGNING_CHAIN"),
        key=path("LICHT_SIGNING_KEY"),
        root=path("LICHT_SIGNING_ROOT"),
        time_stamp_url=text("LICHT_TIME_STAMP_URL"),
        training=text("LICHT_TRAINING"),
        block_lists=tuple(Path(part) for part in (text("LICHT_BLOCK_LISTS") or "").split(os.pathsep) if part),
        image_filter=text("LICHT_IMAGE_FILTER"),
        fail_closed=failing == "closed",
    )


@dataclass(frozen=True, slots=True)
class Decision:
    """One row of the audit: what was decided about what, and why; never the prompt."""

    stage: str
    action: str
    rule: str
    category: str
    score: float
    tolerance: int
    at: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"))


class Tools:
    """Loads what `trust` names, each thing once and only when it is needed. Threads may share it."""

    def __init__(self, trust: Trust | None = None) -> None:
        """None means `trust_from_environment`, looked at when something is first needed."""
        self._given = trust
        self._lock = threading.RLock()

    @cached_property
    def trust(self) -> Trust:
        """The settings in use."""
        return self._given if self._given is not None else trust_from_environment()

    @cached_property
    def credentials(self) -> "Credentials":
        """What signs, made at first use and checked. Raises `NotAvailable`, `InvalidSettings`."""
        from licht.safety import certificates

        with self._lock:
            trust = self.trust
            if trust.chain is not None and trust.key is not None:
                return certificates.load(trust.chain, trust.key, trust.root, trust.time_stamp_url)
            self._prepare()
            paths = (trust.folder / name for name in (certificates.CHAIN_FILE, certificates.KEY_FILE))
            chain, key = paths
            root = trust.folder / certificates.ROOT_FILE
            if not self._was_checked(chain, key):
                certificates.load(chain, key, root)
                self._remember_check(chain, key)
            certificates.require_private(key)
            return certificates.Credentials(
                chain.read_bytes(), key.read_bytes(), "es256", root.read_bytes(), trust.time_stamp_url
            )

    @cached_property
    def signer(self) -> "Signer":
        """Signs with `credentials`."""
        from licht.safety.provenance import Signer

        with self._lock:
            return Signer(self.credentials)

    @cached_property
    def watermark(self) -> "Watermark":
        """Marks with this installation's key. Raises `NotAvailable`, `InvalidSettings`."""
        from licht.safety import certificates
        from licht.safety.watermark import Watermark

        with self._lock:
            self._prepare()
            path = self.trust.folder / WATERMARK_FILE
            certificates.require_private(path)
            return Watermark(path.read_bytes())

    @cached_property
    def block_lists(self) -> "tuple[BlockList, ...]":
        """The perceptual hashes of pictures that are refused. Raises `InvalidSettings` with the line of a bad one."""
        from licht.safety.hashes import read_block_list

        return tuple(read_block_list(path) for path in self.trust.block_lists)

    @cached_property
    def image_filter(self) -> "ImageFilter | None":
        """The classifier behind the image filter, or None."""
        from licht.safety.image_filter import open_filter

        return open_filter(self.trust.image_filter) if self.trust.image_filter else None

    def anchors(self) -> bytes | None:
        """The root that this installation trusts, without making one: None where there is none yet."""
        from licht.safety.certificates import ROOT_FILE

        root = self.trust.root or self.trust.folder / ROOT_FILE
        return root.read_bytes() if root.is_file() else None

    def known_watermark(self) -> "Watermark | None":
        """This installation's watermark if it has one; nothing is made."""
        return self.watermark if (self.trust.folder / WATERMARK_FILE).is_file() else None

    def audit(self, decision: Decision) -> None:
        """Append one row. Raises `NotAvailable` if the file cannot be written: a decision must not be lost."""
        path = self.trust.folder / AUDIT_FILE
        line = json.dumps(asdict(decision)) + "\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(handle, "ab") as file:
                file.write(line.encode())
        except OSError as error:
            raise NotAvailable(f"{path} cannot be written ({error.strerror}); make room or set LICHT_TRUST") from error

    def _prepare(self) -> None:
        """Make the folder with all keys, or find it made; two processes that start at once agree on one."""
        from licht.safety import certificates

        folder = self.trust.folder
        if (folder / certificates.KEY_FILE).is_file() and (folder / WATERMARK_FILE).is_file():
            return
        part = folder.with_name(f".{folder.name}-{secrets.token_hex(8)}")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            certificates.create(part)
            write_watermark_key(part)
            folder.mkdir(exist_ok=True, mode=0o700)
            # the signing key last: whoever sees it may rely on the rest; a name that is taken stays as it is
            names = (certificates.ROOT_FILE, certificates.CHAIN_FILE, WATERMARK_FILE, certificates.KEY_FILE)
            lock = folder / ".making"
            with _exclusively(lock):
                if not (folder / certificates.KEY_FILE).exists():
                    for name in names:
                        if not (name == WATERMARK_FILE and (folder / name).exists()):
                            (part / name).replace(folder / name)
                elif not (folder / WATERMARK_FILE).exists():
                    (part / WATERMARK_FILE).replace(folder / WATERMARK_FILE)
        except OSError as error:
            raise NotAvailable(
                f"keys cannot be made in {folder} ({error.strerror}); set LICHT_TRUST to a folder that can be written, "
                "or use --policy off"
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _was_checked(self, chain: Path, key: Path) -> bool:
        """Whether these very files passed the check before, and are still valid: checking costs a third of a second."""
        try:
            seen = json.loads((self.trust.folder / _CHECKED_FILE).read_text())
            digest = hashlib.sha256(chain.read_bytes() + key.read_bytes()).hexdigest()
            now = dt.datetime.now(dt.UTC).timestamp()
            return bool(seen["sha256"] == digest and seen["from"] <= now < seen["until"])
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _remember_check(self, chain: Path, key: Path) -> None:
        from cryptography import x509

        leaf = x509.load_pem_x509_certificates(chain.read_bytes())[0]
        seen = {
            "sha256": hashlib.sha256(chain.read_bytes() + key.read_bytes()).hexdigest(),
            "from": leaf.not_valid_before_utc.timestamp(),
            "until": leaf.not_valid_after_utc.timestamp(),
        }
        with contextlib.suppress(OSError):  # only a saving of time
            (self.trust.folder / _CHECKED_FILE).write_text(json.dumps(seen))


def write_watermark_key(folder: Path) -> None:
    """A new random key, for the owner's eyes only. Raises `OSError` if there is one."""
    from licht.safety.certificates import write_file

    write_file(folder / WATERMARK_FILE, secrets.token_bytes(_KEY_BYTES), 0o600)


@contextlib.contextmanager
def _exclusively(path: Path) -> Iterator[None]:
    """Hold a lock that a crashed process lets go of."""
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
