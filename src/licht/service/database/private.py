"""Files and folders for the user that the service runs as, whatever the umask says."""

import os
from pathlib import Path
from typing import IO, Final

_FILE: Final = 0o600
_FOLDER: Final = 0o700


def make_folder(path: Path) -> None:
    """Make a folder, and what lies above it, where they are missing; one that is there stays as it is."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(_FOLDER, exist_ok=True)


def make_file(path: Path) -> None:
    """Make an empty file where there is none."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, _FILE))


def open_new(path: Path) -> IO[bytes]:
    """Open a file for writing that must not be there yet. Raises `FileExistsError`."""
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _FILE), "wb")
