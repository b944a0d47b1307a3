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
        "7ef3d91e3c82eb354d1c6277aa6e32521805bded08b4e56882c116c7d64078b4": "nano, transformer",
        "fe172ad779501a609339decf17c9791e1534eaafd0cac2b77cb18e0eb8674291": "nano, autoencoder",
        "ef31e21b70550d1638aa9ce7fc301de799829e8e54a712503ba3abfb3842c4d3": "nano, text encoder",
        "a9223ed9290da18e61f6f7e22364e76544f23f10077abcb1d9efad3f48b07d93": "nano-base, transformer",
        "06650d88b7e6230963cc06304e4a0a686db2393f4e75dddbc2300a9b1825c9d7": "nano-base, autoencoder",
        "441fa5fa3c6cf67351ba0a6b229bb5e8c21696de44973a0b51739cb945ead621": "nano-base, text encoder",
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
