"""What this installation has let out: one short line a picture, so that a copy can be recognised later.

A line holds the time, the watermark's payload and the perceptual hash; no prompt, no name, no pixels.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from licht.core.errors import NotAvailable
from licht.core.request import Picture
from licht.safety.hashes import MATCH_DISTANCE, eight, from_hex, pdq

REGISTRY_FILE: Final = "released.log"
_FIELDS: Final = 3


@dataclass(frozen=True, slots=True)
class Record:
    """A released picture: seconds since 1970, its payload, and how many of 256 bits its hash differs."""

    at: float
    payload: int | None
    distance: int

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        payload = f"{self.payload:016x}" if self.payload is not None else None
        return {"at": self.at, "payload": payload, "distance": self.distance}


class Registry:
    """A file that only grows; several processes may write to it."""

    def __init__(self, folder: Path) -> None:
        """Nothing is made before the first picture."""
        self._path = folder / REGISTRY_FILE

    def add(self, picture: Picture, payload: int | None) -> None:
        """Write a picture down. Raises `NotAvailable` if that fails."""
        line = f"{int(time.time())} {payload if payload is None else format(payload, '016x')} {pdq(picture)}\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(handle, "ab") as file:
                file.write(line.encode())  # one write of a short line: lines of several processes do not mix
        except OSError as error:
            raise NotAvailable(
                f"{self._path} cannot be written ({error.strerror}); make room, or set LICHT_REGISTRY=off"
            ) from error

    def find(self, picture: Picture) -> Record | None:
        """The nearest released picture in any of eight orientations, if it is near enough to be the same."""
        rows = self._rows()
        if not rows:
            return None
        known = np.stack([from_hex(row[2]) for row in rows])
        apart = np.min([(known ^ one).sum(axis=1) for one in eight(picture)], axis=0)
        nearest = int(apart.argmin())
        if apart[nearest] > MATCH_DISTANCE:
            return None
        at, payload, _ = rows[nearest]
        return Record(float(at), None if payload == "None" else int(payload, 16), int(apart[nearest]))

    def _rows(self) -> list[list[str]]:
        """Every whole line; a line that a full disk has cut is left out."""
        try:
            lines = self._path.read_text(encoding="ascii", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        rows = [line.split(" ") for line in lines]
        return [row for row in rows if len(row) == _FIELDS and len(row[2]) == 64 and set(row[2]) <= _HEX]


_HEX: Final = frozenset("0123456789abcdef")
