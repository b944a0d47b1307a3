"""Which invisible watermark an installation uses: its own, or one that is plugged in.

The plug-ins are other projects' (`invisible-watermark`, `trustmark`) and have no key. Their few bits hold a part of the
payload and 16 bits of a keyed check, so a mark of this installation can be told from another's; the p-value is what that
check is worth. Licht's own mark is the default: docs/safety.md compares them.
"""

import hashlib
import hmac
from typing import Any, Final, Protocol

import numpy as np
from PIL import Image

from licht.core.errors import InvalidSettings, NotAvailable
from licht.core.request import Picture
from licht.safety.plugins import is_plugin, plugin
from licht.safety.watermark import Detection, Watermark

CHECK_BITS: Final = 16
_LEAST_PX: Final = 256 * 256
NAMES: Final = ("licht", "dwtDct", "rivaGan", "trustmark")


class Mark(Protocol):
    """An invisible watermark with this installation's key."""

    @property
    def algorithm(self) -> str:
        """What manifests call it."""
        ...

    @property
    def payload_bits(self) -> int:
        """How many bits of a payload it holds."""
        ...

    def embed(self, picture: Picture, payload: int) -> Picture:
        """`picture` marked; the very same one if it is too small to be."""
        ...

    def detect(self, picture: Picture) -> Detection:
        """What the picture holds."""
        ...


class Bits(Protocol):
    """Another project's watermark: so many bits in, as many out."""

    algorithm: str
    count: int

    def write(self, image: Image.Image, bits: list[int]) -> Image.Image:
        """`image` with these bits in it."""
        ...

    def read(self, image: Image.Image) -> list[int] | None:
        """The bits, or None where it says itself that there are none."""
        ...


class PluggedMark:
    """Payload and keyed check in another project's watermark."""

    def __init__(self, bits: Bits, key: bytes) -> None:
        """`key` is this installation's watermark key."""
        self._bits, self._key = bits, hmac.new(key, b"licht plugged mark", hashlib.sha256).digest()

    @property
    def algorithm(self) -> str:
        """The plug-in's own name."""
        return self._bits.algorithm

    @property
    def payload_bits(self) -> int:
        """What the check leaves."""
        return self._bits.count - CHECK_BITS

    def embed(self, picture: Picture, payload: int) -> Picture:
        """`picture` with the payload's lowest bits; below 256 x 256 pixels the plug-ins mark nothing."""
        if picture.width * picture.height < _LEAST_PX:
            return picture
        payload &= (1 << self.payload_bits) - 1
        number = payload << CHECK_BITS | self._check(payload)
        bits = [number >> place & 1 for place in reversed(range(self._bits.count))]
        marked = self._bits.write(Image.frombytes("RGB", (picture.width, picture.height), picture.rgb), bits)
        return Picture(picture.width, picture.height, marked.convert("RGB").tobytes())

    def detect(self, picture: Picture) -> Detection:
        """The payload, if its check is right: by chance once in 65,536 pictures, which is the p-value."""
        nothing = Detection(1.0, None, None, 1.0, 0.0, flipped=False)
        if picture.width * picture.height < _LEAST_PX:
            return nothing
        bits = self._bits.read(Image.frombytes("RGB", (picture.width, picture.height), picture.rgb))
        if bits is None or len(bits) != self._bits.count:
            return nothing
        payload, check = divmod(int("".join(str(int(bit)) for bit in bits), 2), 1 << CHECK_BITS)
        if not hmac.compare_digest(check.to_bytes(2, "big"), self._check(payload).to_bytes(2, "big")):
            return nothing
        return Detection(2.0**-CHECK_BITS, payload, None, 1.0, 0.0, flipped=False, limit=2.0 ** (1 - CHECK_BITS))

    def _check(self, payload: int) -> int:
        digest = hmac.new(self._key, payload.to_bytes(8, "big"), hashlib.sha256).digest()
        return int.from_bytes(digest[: CHECK_BITS // 8], "big")


class InvisibleWatermark:
    """`invisible-watermark`: dwtDct with 48 bits, as the official code uses it, or the learned rivaGan with 32."""

    def __init__(self, method: str) -> None:
        """Raises `NotAvailable` where the package is not installed."""
        try:
            import imwatermark
        except ImportError as error:
            raise NotAvailable(
                f"LICHT_WATERMARK={method} needs the package invisible-watermark; install it, or unset LICHT_WATERMARK"
            ) from error
        self._library, self._method = imwatermark, method
        self.algorithm = f"invisible-watermark.{method}"
        self.count = 32 if method == "rivaGan" else 48
        if method == "rivaGan":
            imwatermark.WatermarkEncoder.loadModel()

    def write(self, image: Image.Image, bits: list[int]) -> Image.Image:
        """`image` with these bits in it."""
        encoder = self._library.WatermarkEncoder()
        encoder.set_watermark("bits", bits)
        marked = encoder.encode(np.asarray(image)[:, :, ::-1].copy(), self._method)
        return Image.fromarray(np.clip(marked, 0, 255).astype(np.uint8)[:, :, ::-1].copy())

    def read(self, image: Image.Image) -> list[int]:
        """Some bits, always."""
        decoder = self._library.WatermarkDecoder("bits", self.count)
        return [int(bit) for bit in decoder.decode(np.asarray(image)[:, :, ::-1].copy(), self._method)]


class TrustMark:
    """`trustmark` (variant Q, 61 bits behind BCH_5). It fetches its weights when it is first opened."""

    algorithm = "com.adobe.trustmark.Q"
    count = 61

    def __init__(self) -> None:
        """Raises `NotAvailable` where the package or its weights are not there."""
        try:
            import trustmark

            kinds = trustmark.TrustMark
            self._library: Any = kinds(verbose=False, model_type="Q", encoding_type=kinds.Encoding.BCH_5)
        except Exception as error:  # no package, no weights, no network: one meaning
            raise NotAvailable(
                "LICHT_WATERMARK=trustmark needs the package trustmark and its weights; install it, or unset "
                "LICHT_WATERMARK"
            ) from error

    def write(self, image: Image.Image, bits: list[int]) -> Image.Image:
        """`image` with these bits in it."""
        marked: Image.Image = self._library.encode(image, "".join(map(str, bits)), MODE="binary")
        return marked

    def read(self, image: Image.Image) -> list[int] | None:
        """The bits, or None where its own error correction finds none."""
        secret, present, *_ = self._library.decode(image, MODE="binary")
        return [int(bit) for bit in str(secret)] if present else None


def open_mark(name: str, key: bytes) -> Mark:
    """The watermark called `name`. Raises `InvalidSettings` for an unknown one, `NotAvailable` for one not installed."""
    if name == "licht":
        return Watermark(key)
    if name in ("dwtDct", "rivaGan"):
        return PluggedMark(InvisibleWatermark(name), key)
    if name == "trustmark":
        return PluggedMark(TrustMark(), key)
    if is_plugin(name):
        return PluggedMark(plugin(name, "LICHT_WATERMARK")(), key)
    raise InvalidSettings(f"LICHT_WATERMARK is {name!r}; use one of {', '.join(NAMES)}, or python:module:function")
