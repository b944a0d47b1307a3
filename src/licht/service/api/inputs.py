"""Pictures from outside: base64, data URIs and URLs become checked, decoded pixels. What was sent is not kept."""

import asyncio
import base64
import binascii
import io
import re
from collections.abc import Sequence
from typing import Final

from PIL import Image, UnidentifiedImageError

from licht.core.errors import InvalidImage, InvalidRequest
from licht.core.request import Picture
from licht.safety.images import open_picture
from licht.service.fetch import Fetcher
from licht.service.settings import InputsSection

FORMATS: Final = ("PNG", "JPEG", "WEBP")
_DATA_URI: Final = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,", re.ASCII)
_URL: Final = re.compile(r"https?://", re.IGNORECASE)


class Inputs:
    """Reads what callers send as pictures. A few are decoded at a time, however many arrive."""

    def __init__(self, limits: InputsSection, fetcher: Fetcher | None, parallel: int = 2) -> None:
        """Keep to `limits`; without a `fetcher`, URLs are refused."""
        self._limits = limits
        self._fetcher = fetcher
        self._gate = asyncio.Semaphore(parallel)

    async def read(self, values: Sequence[tuple[str, str]]) -> list[Picture]:
        """Read (field, value) pairs in order. Raises `InvalidImage` that names the field."""
        return [await self._read(field, value) for field, value in values]

    async def _read(self, field: str, value: str) -> Picture:
        try:
            data = await self._bytes(value)
            async with self._gate:
                return await asyncio.to_thread(self._decode, data, field)
        except InvalidRequest as error:
            raise InvalidImage(error.message, field=field) from error

    async def _bytes(self, value: str) -> bytes:
        if _URL.match(value):
            if self._fetcher is None:
                raise InvalidImage("pictures by URL are switched off here; send base64")
            return await self._fetcher.picture(value)
        uri = _DATA_URI.match(value)
        text = value[uri.end() :] if uri else value
        if len(text) * 3 // 4 > self._limits.max_bytes + 4:
            raise InvalidImage(f"the picture has more than {self._limits.max_bytes:,} bytes; make it smaller")
        try:
            # line breaks are common in base64; anything else that does not belong there is an error
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidImage("the picture is neither base64 nor an http or https URL") from error

    def _decode(self, data: bytes, field: str) -> Picture:
        if len(data) > self._limits.max_bytes:
            raise InvalidImage(f"the picture has more than {self._limits.max_bytes:,} bytes; make it smaller")
        width, height = _size_of(data)
        if width * height > self._limits.max_pixels:
            raise InvalidImage(
                f"the picture is {width}x{height} px; at most {self._limits.max_pixels:,} pixels are taken"
            )
        if min(width, height) < self._limits.min_side_px:
            raise InvalidImage(f"the picture is {width}x{height} px; use at least {self._limits.min_side_px} px a side")
        return open_picture(data, field)


def _size_of(data: bytes) -> tuple[int, int]:
    """(width, height) from the header alone."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.size
    except UnidentifiedImageError as error:
        raise InvalidImage("the picture is not PNG, JPEG or WebP; save it as one") from error
    except Exception as error:  # decoders raise whatever they like on damaged data
        raise InvalidImage("the picture is damaged and cannot be decoded; save it again") from error
