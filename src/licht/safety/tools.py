"""What the door works with: keys, certificates, block-lists, classifiers, the audit file; loaded once, when needed."""

import contextlib
import datetime as dt
import hashlib
import json
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import platformdirs

from licht.core.errors import InvalidSettings, NotAvailable

if TYPE_CHECKING:
    from licht.safety.asking import Asker
    from licht.safety.certificates import Credentials
    from licht.safety.hashes import BlockList
    from licht.safety.image_filter import ImageFilter
    from licht.safety.marks import Mark
    from licht.safety.overrides import Override
    from licht.safety.provenance import Signer
    from licht.safety.readers import Reader
    from licht.safety.registry import Registry
    from licht.safety.terms import Terms

WATERMARK_FILE: Final = "watermark.key"
AUDIT_FILE: Final = "audit.jsonl"
_CHECKED_FILE: Final = "checked.json"
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Trust:
    """Where keys, certificates and lists are, and what backs the image filter.

    `folder` is made at first use: a private certificate chain and a watermark key. `chain` and `key` put certificates
    from elsewhere in their place. `training` is what manifests say about training: allowed, notAllowed, constrained.
    `signing` names a function that signs in the place of the key file, for keys that never leave their hardware.
    `image_filter`, `reader` and `asker` are what stands behind the filters, as their modules say. `fail_closed` decides
    what a filter that fails means. `registry` keeps a line of every released picture.
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
    signing: str | None = None
    term_lists: tuple[Path, ...] = ()
    reader: str | None = None
    asker: str | None = None
    overrides: Path | None = None
    audit_prompts: bool = False
    watermark: str = "licht"
    registry: bool = True

    def __post_init__(self) -> None:
        if self.signing is not None and (self.chain is None or self.key is not None):
            raise InvalidSettings("LICHT_SIGNER signs for LICHT_SIGNING_CHAIN: set that too, and no LICHT_SIGNING_KEY")
        if self.signing is None and (self.chain is None) != (self.key is None):
            raise InvalidSettings("a signing certificate needs its key: set LICHT_SIGNING_CHAIN and LICHT_SIGNING_KEY")
        if self.time_stamp_url is not None and not re.fullmatch(r"https?://[^\s/]+(?:/\S*)?", self.time_stamp_url):
            raise InvalidSettings("LICHT_TIME_STAMP_URL is no http or https address; name an RFC 3161 server")
        if self.training not in (None, "allowed", "notAllowed", "constrained"):
            raise InvalidSettings(f"LICHT_TRAINING is {self.training!r}; use allowed, notAllowed or constrained")


def trust_from_environment() -> Trust:
    """`LICHT_TRUST` and its kin; see docs/safety.md. Raises `InvalidSettings`."""

    def text(name: str) -> str | None:
        return os.environ.get(name) or None

    def path(name: str) -> Path | None:
        return Path(value) if (value := text(name)) else None

    def paths(name: str) -> tuple[Path, ...]:
        return tuple(Path(part) for part in (text(name) or "").split(os.pathsep) if part)

    def either(name: str, usual: str, other: str) -> bool:
        value = text(name) or usual
        if value not in (usual, other):
            raise InvalidSettings(f"{name} is {value!r}; use {usual} or {other}")
        return value == usual

    return Trust(
        folder=path("LICHT_TRUST") or platformdirs.user_data_path("licht") / "trust",
        chain=path("LICHT_SIGNING_CHAIN"),
        key=path("LICHT_SIGNING_KEY"),
        root=path("LICHT_SIGNING_ROOT"),
        time_stamp_url=text("LICHT_TIME_STAMP_URL"),
        training=text("LICHT_TRAINING"),
        block_lists=paths("LICHT_BLOCK_LISTS"),
        image_filter=text("LICHT_IMAGE_FILTER"),
        fail_closed=either("LICHT_FILTER_FAILURE", "closed", "open"),
        signing=text("LICHT_SIGNER"),
        term_lists=paths("LICHT_TERM_LISTS"),
        reader=text("LICHT_OCR"),
        asker=text("LICHT_QUESTION"),
        overrides=path("LICHT_POLICY_OVERRIDES"),
        audit_prompts=not either("LICHT_AUDIT_PROMPTS", "off", "on"),
        watermark=text("LICHT_WATERMARK") or "licht",
        registry=either("LICHT_REGISTRY", "on", "off"),
    )


@dataclass(frozen=True, slots=True)
class Decision:
    """One row of the audit: what was decided about what, and why; the text only where the operator asks for it."""

    stage: str
    action: str
    rule: str
    category: str
    score: float
    tolerance: int
    text: str | None = None
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
            if trust.signing is not None and trust.chain is not None:
                return certificates.load_for_signer(trust.chain, trust.signing, trust.root, trust.time_stamp_url)
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
    def watermark(self) -> "Mark":
        """Marks with this installation's key. Raises `NotAvailable`, `InvalidSettings`."""
        from licht.safety import certificates
        from licht.safety.marks import open_mark

        with self._lock:
            self._prepare()
            path = self.trust.folder / WATERMARK_FILE
            certificates.require_private(path)
            return open_mark(self.trust.watermark, path.read_bytes())

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

    @cached_property
    def terms(self) -> "Terms":
        """The operator's own words. Raises `InvalidSettings` with the lines that are none."""
        from licht.safety.terms import read_terms

        return read_terms(self.trust.term_lists)

    @cached_property
    def reader(self) -> "Reader | None":
        """What reads the text in pictures, or None. Raises `InvalidSettings`, `NotAvailable`."""
        from licht.safety.readers import Reader

        return Reader(self.trust.reader) if self.trust.reader else None

    @cached_property
    def asker(self) -> "Asker | None":
        """What puts the yes/no question, or None. Raises `InvalidSettings`."""
        from licht.safety.asking import Asker

        return Asker(self.trust.asker) if self.trust.asker else None

    @cached_property
    def overrides(self) -> "Mapping[str, Override]":
        """What keys may do differently. Raises `InvalidSettings`."""
        from licht.safety.overrides import read_overrides

        return read_overrides(self.trust.overrides)

    @cached_property
    def registry(self) -> "Registry | None":
        """The list of what was released, or None where it is switched off."""
        from licht.safety.registry import Registry

        return Registry(self.trust.folder) if self.trust.registry else None

    @property
    def has_keys(self) -> bool:
        """Whether there is something to sign and to mark with, or it would be made at first use."""
        from licht.safety.certificates import KEY_FILE

        return self.trust.chain is not None or (self.trust.folder / KEY_FILE).is_file()

    def open_all(self, make_keys: bool = True) -> None:
        """Open everything that is configured, now and not at the first picture. Raises what is wrong with it.

        Without `make_keys` only what is there is looked at.
        """
        _ = self.block_lists, self.terms, self.image_filter, self.reader, self.asker, self.overrides
        if not (make_keys or self.has_keys):
            return
        _ = self.credentials
        if self.trust.watermark != "licht":
            _ = self.watermark

    def anchors(self) -> bytes | None:
        """The root that this installation trusts, without making one: None where there is none yet."""
        from licht.safety.certificates import ROOT_FILE

        root = self.trust.root or self.trust.folder / ROOT_FILE
        return root.read_bytes() if root.is_file() else None

    def known_watermark(self) -> "Mark | None":
        """This installation's watermark if it has one; nothing is made."""
        return self.watermark if (self.trust.folder / WATERMARK_FILE).is_file() else None

    def audit(self, decision: Decision) -> None:
        """Append one row. Raises `NotAvailable` if the file cannot be written: a decision must not be lost."""
        path = self.trust.folder / AUDIT_FILE
        row = {name: value for name, value in asdict(decision).items() if not (name == "text" and value is None)}
        line = json.dumps(row) + "\n"
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
