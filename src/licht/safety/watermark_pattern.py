"""The keyed patterns of the watermark, on a plane of cells of 3 x 3 pixels that starts at the picture's top left.

Three layers are added up:

- **sync**: a sum of sinusoids whose frequencies and phases follow from the key. It tells a detector scale, rotation,
  orientation and position. It is the same in every picture of a key and proves nothing.
- **nonce**: one keyed random sheet, displaced by the picture's nonce (20 bits). Finding the displacement gives the nonce.
- **mark**: random signs that follow from the key *and* the nonce. Seven cells in twelve hold a known signal, from which
  the p-value comes; the rest holds the coded payload.

Whoever has one marked picture, or many, learns at most the two layers that prove nothing.

Legend: R rows and C columns of cells, K sinusoids.
"""

import hashlib
import hmac
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from licht.core.errors import InvalidSettings
from licht.safety.watermark_code import CODED_BITS

Floats = NDArray[np.float32]

PITCH_PX: Final = 3
PERIOD_CELLS: Final = 1024
PERIOD_PX: Final = PITCH_PX * PERIOD_CELLS
NONCE_BITS: Final = 20
KEY_BYTES: Final = 32

SINUSOIDS: Final = 64
LOWEST: Final = 0.055
HIGHEST: Final = 0.17
"""Cycles a pixel between which the sinusoids lie: JPEG keeps what is slow, eyes and resizing forgive what is fast."""
SHARES: Final = (0.38, 0.15, 0.47)
"""Of the energy: sync, nonce, mark."""

_AXIS_GUARD: Final = 0.014
_SPACING: Final = 0.009
_TILE_CELLS: Final = 64
_SLOTS: Final = CODED_BITS * 12 // 5
PILOT: Final = CODED_BITS
"""The slot number of cells whose sign is known without the payload."""


@dataclass(frozen=True)
class Lines:
    """The sinusoids: (K, 2) integer frequencies (x, y) in cycles a period, (K,) phases in radians."""

    frequencies_K2: NDArray[np.int64]
    phases_K: NDArray[np.float64]

    @cached_property
    def _tables(self) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
        # a turn is one of PERIOD_CELLS: looked up, not computed
        turn = np.exp(-2j * np.pi / PERIOD_CELLS * np.arange(PERIOD_CELLS)).astype(np.complex64)
        across, down = (
            turn[self.frequencies_K2[:, axis : axis + 1] * np.arange(PERIOD_CELLS) % PERIOD_CELLS] for axis in (0, 1)
        )
        return across, down

    def waves(self, axis: int) -> NDArray[np.complex64]:
        """(K, PERIOD_CELLS): what a step of each number of cells along `axis` turns back."""
        return self._tables[axis]


@dataclass(frozen=True)
class Patterns:
    """Everything that follows from the key alone. Make it once; it takes a few milliseconds."""

    lines: Lines
    sheet: NDArray[np.int8]
    mark_key: bytes
    check_key: bytes

    @cached_property
    def sheet_spectrum(self) -> NDArray[np.complex64]:
        """(C, R): `rfft2` of the sheet, transposed."""
        spectrum = np.fft.rfft2(self.sheet.astype(np.float32)).astype(np.complex64)
        return np.ascontiguousarray(spectrum.T)

    def nonce_layer(self, nonce: int, rows: slice, columns: slice) -> Floats:
        """The displaced sheet over these cells, -1 and 1."""
        down, right = divmod(nonce, PERIOD_CELLS)
        at_R = (np.arange(rows.start, rows.stop) + down) % PERIOD_CELLS
        at_C = (np.arange(columns.start, columns.stop) + right) % PERIOD_CELLS
        return np.asarray(self.sheet[at_R[:, None], at_C[None, :]], np.float32)

    def mark_layer(self, nonce: int, rows: slice, columns: slice) -> tuple[Floats, NDArray[np.int16]]:
        """(signs, slots) over these cells, see `mark_layer`."""
        return mark_layer(self.mark_key, nonce, rows, columns)

    def sync_layer(self, height: int, width: int) -> Floats:
        """The sinusoids at the centres of the first `height` x `width` cells, with a mean square of 1."""
        turns_K2 = 2j * np.pi * self.lines.frequencies_K2 / PERIOD_PX
        x_KC = np.exp(turns_K2[:, :1] * (PITCH_PX * np.arange(width) + 1)).astype(np.complex64)
        y_RK = np.exp(turns_K2[:, 1] * (PITCH_PX * np.arange(height) + 1)[:, None] + 1j * self.lines.phases_K)
        y_RK = y_RK.astype(np.complex64)
        real = np.ascontiguousarray(y_RK.real) @ np.ascontiguousarray(x_KC.real)
        real -= np.ascontiguousarray(y_RK.imag) @ np.ascontiguousarray(x_KC.imag)
        return np.asarray(real * np.sqrt(2 / SINUSOIDS), np.float32)


def mark_layer(mark_key: bytes, nonce: int, rows: slice, columns: slice) -> tuple[Floats, NDArray[np.int16]]:
    """(signs, slots) over these cells: a cell holds its sign times the coded bit of its slot (1 for `PILOT`)."""
    top, left = rows.start // _TILE_CELLS, columns.start // _TILE_CELLS
    down, across = range(top, -(-rows.stop // _TILE_CELLS)), range(left, -(-columns.stop // _TILE_CELLS))
    drawn = np.concatenate([np.concatenate([_tile(mark_key, nonce, r, c) for c in across], 1) for r in down], 0)
    top, left = rows.start - top * _TILE_CELLS, columns.start - left * _TILE_CELLS
    drawn = drawn[top : top + rows.stop - rows.start, left : left + columns.stop - columns.start]
    slots = np.minimum((drawn >> 1) % _SLOTS, PILOT).astype(np.int16)
    return (drawn & 1).astype(np.float32) * 2 - 1, slots


def _tile(mark_key: bytes, nonce: int, row: int, column: int) -> NDArray[np.uint16]:
    seed = mark_key + nonce.to_bytes(4, "big") + row.to_bytes(4, "big") + column.to_bytes(4, "big")
    drawn = hashlib.shake_256(seed).digest(2 * _TILE_CELLS * _TILE_CELLS)
    return np.frombuffer(drawn, "<u2").reshape(_TILE_CELLS, _TILE_CELLS)


def patterns(key: bytes) -> Patterns:
    """Derive everything from a key of 32 bytes. Raises `InvalidSettings` for any other length."""
    if len(key) != KEY_BYTES:
        raise InvalidSettings(f"the watermark key has {len(key)} bytes; use {KEY_BYTES} random ones")
    drawn = hashlib.shake_256(_derived(key, b"sheet")).digest(PERIOD_CELLS * PERIOD_CELLS // 8)
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8)).reshape(PERIOD_CELLS, PERIOD_CELLS)
    return Patterns(
        lines=_lines(_derived(key, b"sync")),
        sheet=bits.astype(np.int8) * 2 - 1,
        mark_key=_derived(key, b"mark"),
        check_key=_derived(key, b"check"),
    )


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hmac.new(key, b"licht watermark 1 " + purpose, hashlib.sha256).digest()


def _lines(key: bytes) -> Lines:
    """Frequencies drawn from a half ring, clear of the axes (edges and JPEG blocks live there) and of one another."""
    drawn = np.frombuffer(hashlib.shake_256(key).digest(SINUSOIDS * 64 * 12), "<u4").reshape(-1, 3) / 2**32
    chosen: list[tuple[int, int]] = []
    phases: list[float] = []
    for radius, angle, phase in drawn:
        length = np.sqrt(LOWEST**2 + (HIGHEST**2 - LOWEST**2) * radius)
        x, y = length * np.cos(np.pi * angle), length * np.sin(np.pi * angle)
        if min(abs(x), abs(y)) < _AXIS_GUARD:
            continue
        whole = round(x * PERIOD_PX), round(y * PERIOD_PX)
        near = (np.hypot(whole[0] - a, whole[1] - b) for a, b in chosen)
        if all(distance >= _SPACING * PERIOD_PX for distance in near):
            chosen.append(whole)
            phases.append(2 * np.pi * phase)
        if len(chosen) == SINUSOIDS:
            return Lines(np.array(chosen), np.array(phases))
    raise AssertionError("4096 draws hold 64 frequencies that keep their distance")
