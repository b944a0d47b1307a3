"""Watermarks of other projects behind the same door."""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from licht.core.errors import InvalidSettings, NotAvailable
from licht.core.request import Picture
from licht.safety.examine import examine
from licht.safety.marks import PluggedMark, open_mark
from licht.safety.policy import parse_policy, release
from licht.safety.provenance import Making
from tests.safety.test_watermark import scene

KEY = bytes(range(32))


class LowestBits:
    """A watermark that survives nothing: bits in the lowest bits of the first pixels."""

    algorithm = "test.lowest-bits"
    count = 48

    def write(self, image: Image.Image, bits: list[int]) -> Image.Image:
        pixels = np.array(image)
        flat = pixels.reshape(-1)
        flat[: self.count] = flat[: self.count] & 0xFE | np.array(bits, np.uint8)
        return Image.fromarray(pixels)

    def read(self, image: Image.Image) -> list[int] | None:
        return [int(value) & 1 for value in np.asarray(image).reshape(-1)[: self.count]]


def test_payload_and_check_come_back() -> None:
    mark = PluggedMark(LowestBits(), KEY)
    assert (mark.payload_bits, mark.algorithm) == (32, "test.lowest-bits")
    marked = mark.embed(scene(300, 256), 0xFFFF_FFFF_1234_5678)
    found = mark.detect(marked)
    assert (found.detected, found.payload, found.p) == (True, 0x1234_5678, 2.0**-16)
    assert not mark.detect(scene(300, 256)).detected
    assert not PluggedMark(LowestBits(), bytes(32)).detect(marked).detected
    small = scene(100, 100)
    assert mark.embed(small, 1) is small
    assert not mark.detect(small).detected


def test_the_door_uses_what_is_plugged_in(trust: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("licht_test_marks")
    module.bits = LowestBits  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("LICHT_WATERMARK", "python:licht_test_marks:bits")
    policy = parse_policy("default")
    data = release(scene(), policy, "PNG", Making(payload=0xAB_CDEF_0123_4567)).data
    assert b"test.lowest-bits" in data
    report = examine(data, policy.tools.watermark, policy.tools.anchors())
    assert report["watermark"]["payload"] == report["c2pa"]["watermark_payload"] == f"{0x0123_4567:016x}"
    assert report["agrees"] is True


def test_unknown_and_absent_ones_are_named_at_the_start(trust: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LICHT_WATERMARK", "magic")
    with pytest.raises(
        InvalidSettings, match="LICHT_WATERMARK is 'magic'; use one of licht, dwtDct, rivaGan, trustmark"
    ):
        parse_policy("default")
    for name, module in (("dwtDct", "imwatermark"), ("rivaGan", "imwatermark"), ("trustmark", "trustmark")):
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setenv("LICHT_WATERMARK", name)
        with pytest.raises(NotAvailable, match=f"LICHT_WATERMARK={name} needs the package"):
            parse_policy("default")


def _stand_in(rivagan_loaded: list[str]) -> types.ModuleType:
    """As much of invisible-watermark's interface as is used: BGR arrays, a list of bits, two methods."""

    class Encoder:
        @classmethod
        def loadModel(cls) -> None:  # noqa: N802 - its name
            rivagan_loaded.append("loaded")

        def set_watermark(self, kind: str, bits: list[int]) -> None:
            assert kind == "bits"
            self.bits = bits

        def encode(self, pixels: np.ndarray[Any, Any], method: str) -> np.ndarray[Any, Any]:
            assert method in ("dwtDct", "rivaGan")
            made = pixels.astype(float)
            made.reshape(-1)[: len(self.bits)] = np.array(self.bits) * 300.0  # beyond white, as the real one may be
            return made

    class Decoder:
        def __init__(self, kind: str, count: int) -> None:
            assert kind == "bits"
            self.count = count

        def decode(self, pixels: np.ndarray[Any, Any], method: str) -> list[int]:
            return [int(value > 100) for value in pixels.reshape(-1)[: self.count]]

    module = types.ModuleType("imwatermark")
    module.WatermarkEncoder, module.WatermarkDecoder = Encoder, Decoder  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(("name", "bits"), [("dwtDct", 32), ("rivaGan", 16)])
def test_invisible_watermark_is_spoken_to_as_it_wants(monkeypatch: pytest.MonkeyPatch, name: str, bits: int) -> None:
    loaded: list[str] = []
    monkeypatch.setitem(sys.modules, "imwatermark", _stand_in(loaded))
    mark = open_mark(name, KEY)
    assert (mark.payload_bits, mark.algorithm, bool(loaded)) == (bits, f"invisible-watermark.{name}", name == "rivaGan")
    assert mark.detect(mark.embed(scene(), 0xDEAD_BEEF)).payload == 0xDEAD_BEEF & (1 << bits) - 1


def test_trustmark_is_spoken_to_as_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    held: dict[str, str] = {}

    class TrustMark:
        class Encoding:
            BCH_5 = 1

        def __init__(self, verbose: bool, model_type: str, encoding_type: int) -> None:
            assert (verbose, model_type, encoding_type) == (False, "Q", 1)

        def encode(self, image: Image.Image, secret: str, MODE: str) -> Image.Image:
            assert (len(secret), MODE) == (61, "binary")
            held["secret"] = secret
            return image.copy()

        def decode(self, image: Image.Image, MODE: str) -> tuple[str, bool, int]:
            assert (image.mode, MODE) == ("RGB", "binary")
            return held.get("secret", ""), bool(held), 1

    module = types.ModuleType("trustmark")
    module.TrustMark = TrustMark  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trustmark", module)
    mark = open_mark("trustmark", KEY)
    assert not mark.detect(scene()).detected
    assert mark.detect(mark.embed(scene(), 1 << 44 | 5)).payload == 1 << 44 | 5
    assert mark.detect(Picture(64, 64, bytes(12288))).payload is None
