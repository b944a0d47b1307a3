"""Pictures to send."""

import base64
import io

from PIL import Image


def png(color: tuple[int, ...] = (200, 30, 30), size: tuple[int, int] = (64, 64), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, color).save(buffer, "PNG")
    return buffer.getvalue()


def shaded(size: tuple[int, int] = (96, 80)) -> bytes:
    """A picture with some structure, which a search for marks can work on."""
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize(size).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def encoded(color: tuple[int, ...] = (200, 30, 30), size: tuple[int, int] = (64, 64), mode: str = "RGB") -> str:
    return base64.b64encode(png(color, size, mode)).decode()
