"""Which weights files a model is made of, and which of them are known."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from licht.checkpoint.folder import ModelFiles

# Only what was taken from the file itself or published by its maker belongs here. None of the official files could be
# hashed yet, and no hash is repeated on hearsay.
KNOWN_SHA256: Final[Mapping[str, str]] = MappingProxyType(
    {
        "bba5be72eedb660154ea65e1e45ff69d37a9faf3eb7963ddeadcd33019dd5767": "nano, transformer (1 of 2)",
        "106bad49d7ee2b3caa8382fb2ccc4d56c78259c26d09ba05db1c361e6a65da8d": "nano, transformer (2 of 2)",
        "fba6f4e490d45eebb2bff4fb21dde5921bd087856c40c6d4b3e91b7708593ec6": "nano-base, transformer",
        "ef8bdafbd574e2af7fb82671cb0d770663451a73ca04f8f1ea9e76b1ab1da00c": "nano-dev, transformer",
        "d41bd5a57d51e7aa7941c87e67b6e24dc048fdaf5e87e86529134187cae573da": "nano, autoencoder",
        "223348368a4e6c038d1e03fcb59c990d54c0e3e5a172ba766ac0e46bf8dbbaff": "nano, text encoder",
    }
)
"""SHA-256 -> what the file is."""


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """One weights file, its SHA-256, and what it is known as; None if its hash is not known."""

    path: Path
    sha256: str
    known_as: str | None


def check_files(files: ModelFiles, known: Mapping[str, str] = KNOWN_SHA256) -> Iterator[CheckedFile]:
    """Hash every weights file of a model, one after another: they may be large."""
    for source in (files.transformer, files.autoencoder, files.tower):
        for path in source.paths:
            digest = sha256_of(path)
            yield CheckedFile(path, digest, known.get(digest))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
