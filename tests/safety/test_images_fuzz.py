"""Damaged pictures: whatever the bytes are, the answer is a picture or `InvalidImage`, soon and in bounded memory."""

import struct
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from licht.core.errors import InvalidImage
from licht.core.request import Picture
from licht.safety.images import MAX_PIXELS, open_picture
from tests.support.bounds import little_memory
from tests.support.pictures import PNG_MARK, encoded, image, png_chunk

EXIF = Image.Exif()
EXIF[0x0112] = 6
EXIF[0x010E] = "a description"
FILES = {
    "PNG": encoded(image(40, 24, "P"), "PNG", EXIF, b"profile"),
    "JPEG": encoded(image(40, 24), "JPEG", EXIF, b"profile"),
    "WEBP": encoded(image(40, 24), "WEBP", EXIF, b"profile"),
    "TIFF": encoded(image(40, 24), "TIFF"),
    "BMP": encoded(image(40, 24), "BMP"),
}
PIXELS = zlib.compress(bytes(5000))
FORMATS = pytest.mark.parametrize("file_format", list(FILES))
fuzzed = settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow],
    # a failing picture is small enough to read as it is
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@pytest.fixture(autouse=True, scope="module")
def _bounded() -> Iterator[None]:
    """A `MemoryError` is no answer."""
    with little_memory():
        yield


def opened(data: bytes) -> Picture | InvalidImage:
    try:
        return open_picture(data)
    except InvalidImage as error:
        return error


def read(data: bytes) -> None:
    made = opened(data)
    if isinstance(made, InvalidImage):
        assert made.message.isprintable()
        assert not isinstance(made.__cause__, MemoryError)
    else:
        assert 0 < made.width * made.height <= MAX_PIXELS
        assert len(made.rgb) == made.width * made.height * 3


@FORMATS
@pytest.mark.timeout(200)
@fuzzed
@given(data=st.data())
def test_changed_bytes(file_format: str, data: st.DataObject) -> None:
    good = FILES[file_format]
    # headers are where the harm is: most changes go there
    places = st.integers(0, min(len(good), 200) - 1) | st.integers(0, len(good) - 1)
    values = st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255)
    changed = bytearray(good)
    for place, value in data.draw(st.lists(st.tuples(places, values), min_size=1, max_size=8)):
        changed[place] = value
    read(bytes(changed))


@FORMATS
@pytest.mark.timeout(200)
@fuzzed
@given(data=st.data())
def test_cut_and_spliced_bytes(file_format: str, data: st.DataObject) -> None:
    good = FILES[file_format]
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(good))] * 2)))
    read(good[:start] + data.draw(st.binary(max_size=30)) + good[end:])


@pytest.mark.timeout(200)
@fuzzed
@given(
    width=st.integers(0, 2**32 - 1) | st.integers(1, 100),
    height=st.integers(0, 2**32 - 1) | st.integers(1, 100),
    depth=st.sampled_from([0, 1, 2, 4, 8, 16, 32]),
    colours=st.integers(0, 7),
    rest=st.binary(max_size=40),
)
def test_png_headers_with_right_checksums(width: int, height: int, depth: int, colours: int, rest: bytes) -> None:
    """Changed bytes are mostly caught by the checksum; these are not."""
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    parts = ((b"IHDR", header), (b"PLTE", rest), (b"iCCP", rest), (b"eXIf", rest), (b"IDAT", PIXELS), (b"IEND", b""))
    read(PNG_MARK + b"".join(png_chunk(kind, content) for kind, content in parts))


@pytest.mark.timeout(200)
@fuzzed
@given(st.binary(min_size=8, max_size=200), st.booleans())
def test_exif_of_any_bytes(exif: bytes, header: bool) -> None:
    block = b"Exif\0\0" + (b"MM\0\x2a\0\0\0\x08" if header else b"") + exif
    good = encoded(image(40, 24), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    read(good[:2] + segment + good[2:])
