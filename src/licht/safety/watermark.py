"""The invisible watermark: keyed, blind, 64 bits, with a p-value.

`docs/safety.md` has the measured robustness and what this mark does not promise. No weights, no torch: the patterns of
`watermark_pattern` are added to the luminance at 43 dB, and `watermark_search` finds them again.

Legend: R rows and C columns of cells of 3 x 3 pixels.
"""

import secrets
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from licht.core.errors import InvalidRequest
from licht.core.request import Picture
from licht.safety import watermark_search
from licht.safety.watermark_code import PAYLOAD_BITS, encode
from licht.safety.watermark_filters import blurred, cells, high_passed
from licht.safety.watermark_pattern import NONCE_BITS, PILOT, PITCH_PX, SHARES, Floats, Patterns, patterns

PSNR_DB: Final = 43.15
"""What embedding aims at; rounding to 8 bits costs a little, and 43 is promised."""
MIN_SIDE_PX: Final = 64
DETECTED: Final = 1e-9
"""A picture counts as marked below this p-value."""

_FLOOR: Final = 3.0
_RATIO: Final = 4.0
_EXPONENT: Final = 0.25


@dataclass(frozen=True, slots=True)
class Detection:
    """What a detector found.

    `p` is the probability that a picture without this key's mark looks at least as marked. `payload` is None unless
    the error correction and the keyed check agree on one. `scale`, `rotation_deg` and `flipped` say how the picture
    lies relative to the marked one, and mean nothing where `p` is not small.
    """

    p: float
    payload: int | None
    nonce: int | None
    scale: float
    rotation_deg: float
    flipped: bool
    limit: float = DETECTED

    @property
    def detected(self) -> bool:
        """Whether the mark is there: `p` is below `limit`."""
        return self.p < self.limit


class Watermark:
    """Marks pictures with one key and finds that key's marks."""

    def __init__(self, key: bytes) -> None:
        """`key` is 32 secret random bytes. Raises `InvalidSettings` for any other length."""
        self._patterns: Patterns = patterns(key)

    @property
    def algorithm(self) -> str:
        """What manifests call it."""
        return "licht.watermark.1"

    @property
    def payload_bits(self) -> int:
        """All 64."""
        return PAYLOAD_BITS

    def embed(self, picture: Picture, payload: int, nonce: int | None = None) -> Picture:
        """`picture` with `payload` (64 bits) in it; `nonce` (20 bits) is drawn afresh unless a test fixes it.

        Pictures with a side below 64 px come back unmarked: nothing that small can hold the payload.
        Raises `InvalidRequest` for a payload or nonce that is out of range.
        """
        nonce = secrets.randbelow(1 << NONCE_BITS) if nonce is None else nonce
        if not 0 <= payload < 1 << PAYLOAD_BITS or not 0 <= nonce < 1 << NONCE_BITS:
            raise InvalidRequest(
                f"payload and nonce must fit {PAYLOAD_BITS} and {NONCE_BITS} bits; use smaller numbers"
            )
        if min(picture.width, picture.height) < MIN_SIDE_PX:
            return picture
        image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
        signal_RC = self._signal(payload, nonce, -(-picture.height // PITCH_PX), -(-picture.width // PITCH_PX))
        signal_RC *= _mask(image, *signal_RC.shape)
        return _added(picture, signal_RC)

    def detect(self, picture: Picture) -> Detection:
        """Search `picture` for the mark over scale (0.45 to 2.2), rotation (4 degrees), all orientations and crops."""
        found = watermark_search.search(picture, self._patterns)
        return Detection(found.p, found.payload, found.nonce, found.scale, found.rotation_deg, found.flipped)

    def _signal(self, payload: int, nonce: int, height: int, width: int) -> Floats:
        """(R, C): the three layers, each with its share of the energy."""
        rows, columns = slice(0, height), slice(0, width)
        sync, sheet, mark = (float(np.sqrt(share)) for share in SHARES)
        signs_RC, slots_RC = self._patterns.mark_layer(nonce, rows, columns)
        symbols = np.append(encode(payload, self._patterns.check_key), np.float32(1))
        assert symbols.size == PILOT + 1  # noqa: S101 - the last symbol is the known one
        chips_RC = sheet * self._patterns.nonce_layer(nonce, rows, columns) + mark * signs_RC * symbols[slots_RC]
        return high_passed(chips_RC) + sync * self._patterns.sync_layer(height, width) * _CHIP_RMS


_CHIP_RMS: Final = 0.935
"""Root mean square of high-passed chips: with it, the layers keep their shares."""


def _mask(image: Image.Image, height: int, width: int) -> Floats:
    """(R, C) around 1: more where the picture is busy, less where the eye would see it or it would be clipped away."""
    small_RC = cells(image, height, width)
    detail_RC = high_passed(small_RC)
    activity_RC = np.sqrt(blurred(detail_RC * detail_RC, 4)) + _FLOOR
    mask_RC = activity_RC**_EXPONENT
    lowest = mask_RC.min()
    return np.asarray(np.minimum(mask_RC / lowest, _RATIO), np.float32)


def _added(picture: Picture, signal_RC: Floats) -> Picture:
    """`signal_RC` enlarged to pixels and added to red, green and blue alike, as strong as `PSNR_DB` allows."""
    height, width = signal_RC.shape
    full = Image.fromarray(signal_RC).resize((width * PITCH_PX, height * PITCH_PX), Image.Resampling.BICUBIC)
    delta = np.asarray(full)[: picture.height, : picture.width]
    rms = 255.0 * 10 ** (-PSNR_DB / 20)
    delta = delta * np.float32(rms / (np.sqrt(np.vdot(delta, delta) / delta.size) + 1e-12))
    step = np.rint(delta).astype(np.int16)
    pixels = np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3)
    marked = np.clip(pixels + step[:, :, None], 0, 255).astype(np.uint8)
    return Picture(picture.width, picture.height, marked.tobytes())
