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
        "f0717d282c0775ead3572870b68669573af5fe42871e6ae2c7ec2ac7f3034fbf": "nano, transformer (1 of 2)",
        "f6f3fa2ca61e6934ed8e6a8a08e070eae41eed9536086dfeca5fd0b51f1fbc1c": "nano, transformer (2 of 2)",
        "b0d0ef74a489697c1d04c1b225b0f7b8126d7d0045d845059734592ea15eec65": "nano-base, transformer",
        "ae59087c49611c5aaae066f3902402b56a4dd0de2ca20df71ce16eb8905f1ba6": "nano-dev, transformer",
        "06650d88b7e6230963cc06304e4a0a686db2393f4e75dddbc2300a9b1825c9d7": "nano, autoencoder",
        "504e6fc58494403e8f9a70a53fa2b570014b96fa7f359079eced79c436065af1": "nano, text encoder",
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
