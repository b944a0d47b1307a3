"""Pictures and the files they come in."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from licht.core.request import Picture, Reference

PNG_MARK = b"\x89PNG\r\n\x1a\n"


def picture(width: int = 64, height: int = 64, seed: int = 0) -> Picture:
    """A picture of noise: every pixel can be told from its neighbours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Picture(width, height, pixels.tobytes())


def reference(width: int = 64, height: int = 64, seed: int = 0) -> Reference:
    """A reference of noise."""
    return Reference(picture(width, height, seed), f"noise{seed}.png")


def image(width: int = 64, height: int = 64, mode: str = "RGB") -> Image.Image:
    """A gradient: red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([x, y, np.full_like(x, 128)], axis=-1).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(made: Image.Image, file_format: str, exif: Image.Exif | None = None, icc_profile: bytes = b"") -> bytes:
    """A file in memory."""
    buffer = io.BytesIO()
    made.save(buffer, file_format, exif=exif or Image.Exif(), icc_profile=icc_profile or None)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return PNG_MARK + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG with the right checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_image(path: Path, width: int = 64, height: int = 64) -> Path:
    """A file of the format of its suffix."""
    image(width, height).save(path)
    return path


def pixels(made: Picture) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """(height, width, 3) bytes."""
    return np.frombuffer(made.rgb, dtype=np.uint8).reshape(made.height, made.width, 3)
