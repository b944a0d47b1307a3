"""Perceptual hashes (PDQ) and block-lists of them.

PDQ is 256 bits: the signs, about their median, of the 16 x 16 lowest frequencies (without the constant ones) of a
picture of 64 x 64 blurred luminances (Facebook, "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing
Algorithm", 2019). Different pictures are about 128 bits apart; 31 and less is a match by convention.
"""

import csv
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from licht.core.errors import InvalidSettings
from licht.core.request import Picture

BITS: Final = 256
MATCH_DISTANCE: Final = 31
_SIDE: Final = 64
_KEPT: Final = 16
_LARGEST_PX: Final = 512
_LINE: Final = re.compile(r"([0-9a-fA-F]{64})(?:[\s,;].*)?")
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_COLUMNS: Final = ("pdq", "hash", "pdq_hash", "signal", "indicator", "value")
"""What lists call the column or entry of the hash: PDQ's own tools, exchanges of signals, hash-matching services."""
_LONGEST_LISTED_FAULTS: Final = 5

Bits = NDArray[np.bool_]


def pdq(picture: Picture) -> str:
    """The hash of a picture as 64 hexadecimal digits."""
    return to_hex(_hash(_luminance(picture)))


def eight(picture: Picture) -> NDArray[np.bool_]:
    """(8, 256): the hashes of the picture turned and mirrored in all eight ways."""
    upright = _luminance(picture)
    return np.stack([_hash(np.rot90(way, turns)) for way in (upright, upright[:, ::-1]) for turns in range(4)])


def to_hex(bits: Bits) -> str:
    """64 hexadecimal digits, the highest bit first as in PDQ's own text form."""
    return np.packbits(bits[::-1]).tobytes().hex()


def from_hex(text: str) -> Bits:
    """The bits of 64 hexadecimal digits."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[::-1].astype(bool)


def distance(first: str, second: str) -> int:
    """In how many bits two hashes differ."""
    return (int(first, 16) ^ int(second, 16)).bit_count()


@dataclass(frozen=True)
class BlockList:
    """Hashes of pictures that are refused."""

    name: str
    hashes: NDArray[np.bool_] = field(repr=False)

    def match(self, picture: Picture) -> float | None:
        """The smallest distance of any orientation to any entry, if it is a match; else None."""
        if not len(self.hashes):
            return None
        found = min(int((self.hashes ^ one).sum(axis=1).min()) for one in eight(picture))
        return float(found) if found <= MATCH_DISTANCE else None


def read_block_list(path: Path) -> BlockList:
    """A list of hashes as text, CSV or JSON lines, told by its suffix (.csv, .json, .jsonl, anything else is text).

    Text: one hash of 64 hexadecimal digits a line, anything after a blank or comma; `#` begins a comment. CSV: a header
    that names a column of hashes. JSON: one object a line, or one list. Raises `InvalidSettings` with the numbers of the
    lines that are something else.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"block-list {path} cannot be read as text; check LICHT_BLOCK_LISTS") from error
    readers = {".csv": _of_csv, ".json": _of_json, ".jsonl": _of_json}
    suffix = path.suffix.lower()
    entries = readers[suffix](path, text) if suffix in readers else _of_text(text)
    faults = [number for number, entry in entries if _HEX.fullmatch(entry) is None]
    if faults:
        named = ", ".join(map(str, faults[:_LONGEST_LISTED_FAULTS])) + (", ..." if len(faults) > 5 else "")
        raise InvalidSettings(f"block-list {path} has bad lines ({named}); a hash is 64 hexadecimal digits")
    return BlockList(path.name, np.array([from_hex(entry) for _, entry in entries], bool).reshape(-1, BITS))


def _of_text(text: str) -> list[tuple[int, str]]:
    """(line number, hash) of each entry; a line that holds none stands for itself."""
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        if not content or (number == 1 and content.lower().startswith(("hash", "pdq"))):
            continue
        match = _LINE.fullmatch(content)
        entries.append((number, match[1] if match else content))
    return entries


def _of_csv(path: Path, text: str) -> list[tuple[int, str]]:
    reader = csv.reader(text.splitlines())
    header = [name.strip().lower() for name in next(reader, [])]
    named = [name for name in _COLUMNS if name in header]
    if not named:
        raise InvalidSettings(f"block-list {path} names no column of hashes; call it one of {', '.join(_COLUMNS)}")
    column = header.index(named[0])
    return [(reader.line_num, row[column].strip() if column < len(row) else "") for row in reader if row]


def _of_json(path: Path, text: str) -> list[tuple[int, str]]:
    """Objects with an entry that `_COLUMNS` names, or plain strings; one a line, or all in one list or under `data`."""
    try:
        whole = json.loads(text)
        listed = whole["data"] if isinstance(whole, dict) and "data" in whole else whole
        numbered = list(enumerate(listed if isinstance(listed, list) else [listed], start=1))
    except ValueError:
        numbered = []
        for number, line in enumerate(text.splitlines(), start=1):
            try:
                if line.strip():
                    numbered.append((number, json.loads(line)))
            except ValueError:
                numbered.append((number, None))
    except RecursionError:
        raise InvalidSettings(f"block-list {path} is nested too deeply; use one object a line") from None
    return [(number, _hash_of(value)) for number, value in numbered]


def _hash_of(value: object) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, dict):
        for name in _COLUMNS:
            if isinstance(value.get(name), str):
                return str(value[name]).strip()
    return ""


def _luminance(picture: Picture) -> NDArray[np.float64]:
    """(H, W), both at most 512."""
    image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    if max(image.size) > _LARGEST_PX:
        scale = _LARGEST_PX / max(image.size)
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    return np.asarray(np.asarray(image, np.float64) @ np.array([0.299, 0.587, 0.114]))


def _hash(luminance: NDArray[np.float64]) -> Bits:
    """(256,) bits: which of the low frequencies of the blurred luminance are above their median."""
    for axis in (0, 1):
        # two box filters of a 128th of the side: close to a triangle
        span = max(1, (luminance.shape[axis] + 2 * _SIDE - 1) // (2 * _SIDE))
        for _ in range(2):
            luminance = _box(luminance, span, axis)
    rows, columns = (((np.arange(_SIDE) + 0.5) * side / _SIDE).astype(int) for side in luminance.shape)
    small = luminance[rows[:, None], columns[None, :]]
    waves = np.arange(1, _KEPT + 1)[:, None] * (2 * np.arange(_SIDE) + 1)[None, :]
    transform = np.sqrt(2 / _SIDE) * np.cos(np.pi / (2 * _SIDE) * waves)
    frequencies = transform @ small @ transform.T
    return np.asarray(frequencies > np.median(frequencies)).reshape(-1)


def _box(values: NDArray[np.float64], span: int, axis: int) -> NDArray[np.float64]:
    """A running mean of up to `span` values; at the edges, of those that are there."""
    size = values.shape[axis]
    total = np.concatenate([np.zeros_like(values.take([0], axis)), values.cumsum(axis)], axis)
    first = np.maximum(np.arange(size) - (span - 1) // 2, 0)
    last = np.minimum(np.arange(size) + span // 2 + 1, size)
    shape = [1, 1]
    shape[axis] = size
    return np.asarray((total.take(last, axis) - total.take(first, axis)) / (last - first).reshape(shape))
