"""Pictures from outside: base64, data URIs, URLs and the caller's own pictures become checked, decoded pixels."""

import asyncio
import base64
import binascii
import io
import re
from collections.abc import Callable
from typing import Final

from PIL import Image, UnidentifiedImageError

from licht.core.errors import InvalidImage, InvalidRequest, NotAvailable, UnknownJob
from licht.core.request import Mask, Picture
from licht.safety.images import open_picture
from licht.service.api.draft import Given
from licht.service.fetch import Fetcher
from licht.service.settings import InputsSection

FORMATS: Final = ("PNG", "JPEG", "WEBP")
_DATA_URI: Final = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,", re.ASCII)
_URL: Final = re.compile(r"https?://", re.IGNORECASE)
_OWN: Final = re.compile(r"(reference|job):([\w-]{1,64})", re.ASCII)

FindOwn = Callable[[str, str, str], Picture | bytes]
"""(id of a key, "reference" or "job", id) -> the pixels that it keeps, or the file that it drew. Raises `UnknownJob`."""


class Inputs:
    """Reads what callers send as pictures. A few are decoded at a time, however many arrive."""

    def __init__(self, limits: InputsSection, fetcher: Fetcher | None, find_own: FindOwn, parallel: int = 2) -> None:
        """Keep to `limits`; without a `fetcher`, URLs are refused."""
        self._limits = limits
        self._fetcher = fetcher
        self._find_own = find_own
        self._gate = asyncio.Semaphore(parallel)

    async def read(self, key_id: str, given: Given) -> Picture:
        """Read one picture. Raises `InvalidImage` that names the field."""
        try:
            own = await self._own(key_id, given.value)
            if isinstance(own, Picture):
                return own
            data = own if own is not None else await self._sent(given.value)
            async with self._gate:
                return await asyncio.to_thread(self._decode, data, given.field)
        except InvalidRequest as error:
            raise InvalidImage(error.message, field=given.field) from error

    async def read_mask(self, key_id: str, given: Given, is_alpha: bool) -> Mask:
        """Read a mask: white changes, or with `is_alpha` what is transparent. Raises `InvalidImage`."""
        if not is_alpha:
            picture = await self.read(key_id, given)
            gray = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb).convert("L")
            return Mask(picture.width, picture.height, gray.tobytes())
        try:
            data = await self._sent(given.value)
            async with self._gate:
                return await asyncio.to_thread(self._transparent, data)
        except InvalidRequest as error:
            raise InvalidImage(error.message, field=given.field) from error

    async def read_file(self, key_id: str, given: Given) -> bytes:
        """The file of a picture as it was sent or drawn, undecoded. Raises `InvalidImage`."""
        try:
            own = await self._own(key_id, given.value)
            if isinstance(own, Picture):
                raise InvalidImage("of a reference only the pixels are kept; send the file itself")
            data = own if own is not None else await self._sent(given.value)
        except InvalidRequest as error:
            raise InvalidImage(error.message, field=given.field) from error
        return self.checked(data, given.field)

    def checked(self, data: bytes, field: str) -> bytes:
        """A file as it was sent, measured on its header. Raises `InvalidImage`."""
        try:
            self._measure(data)
        except InvalidRequest as error:
            raise InvalidImage(error.message, field=field) from error
        return data

    async def _own(self, key_id: str, value: str | bytes) -> Picture | bytes | None:
        own = _OWN.fullmatch(value) if isinstance(value, str) else None
        if own is None:
            return None
        try:
            return await asyncio.to_thread(self._find_own, key_id, own[1], own[2])
        except (UnknownJob, NotAvailable) as error:
            raise InvalidImage(f"there is no {own[1]} {own[2]} with a picture; check the id") from error

    async def _sent(self, value: str | bytes) -> bytes:
        if isinstance(value, bytes):
            return value
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
        self._measure(data)
        return open_picture(data, field)

    def _transparent(self, data: bytes) -> Mask:
        self._measure(data)
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if not image.has_transparency_data:
                    raise InvalidImage("the mask has no transparency; make transparent what may change")
                alpha = image.convert("RGBA").getchannel("A")
        except InvalidImage:
            raise
        except Exception as error:  # decoders raise whatever they like on damaged data
            raise InvalidImage("the mask is damaged and cannot be decoded; save it again") from error
        return Mask(alpha.width, alpha.height, alpha.point(lambda value: 255 - value).tobytes())

    def _measure(self, data: bytes) -> None:
        if len(data) > self._limits.max_bytes:
            raise InvalidImage(f"the picture has more than {self._limits.max_bytes:,} bytes; make it smaller")
        width, height = _size_of(data)
        if width * height > self._limits.max_pixels:
            raise InvalidImage(
                f"the picture is {width}x{height} px; at most {self._limits.max_pixels:,} pixels are taken"
            )
        if min(width, height) < self._limits.min_side_px:
            raise InvalidImage(f"the picture is {width}x{height} px; use at least {self._limits.min_side_px} px a side")


class Reader:
    """Reads the pictures of one request; what is named several times is read once."""

    def __init__(self, inputs: Inputs, key_id: str) -> None:
        """Read for the key `key_id`."""
        self._inputs = inputs
        self._key_id = key_id
        self._known: dict[str | bytes, Picture] = {}

    def remember(self, value: str | bytes, picture: Picture) -> None:
        """`value` stands for a picture that was read already."""
        self._known[value] = picture

    async def read(self, given: Given) -> Picture:
        """One picture. Raises `InvalidImage` that names the field."""
        if given.value not in self._known:
            self.remember(given.value, await self._inputs.read(self._key_id, given))
        return self._known[given.value]

    async def read_mask(self, given: Given, is_alpha: bool) -> Mask:
        """One mask. Raises `InvalidImage` that names the field."""
        return await self._inputs.read_mask(self._key_id, given, is_alpha)


def _size_of(data: bytes) -> tuple[int, int]:
    """(width, height) from the header alone."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.size
    except UnidentifiedImageError as error:
        raise InvalidImage("the picture is not PNG, JPEG or WebP; save it as one") from error
    except Exception as error:  # decoders raise whatever they like on damaged data
        raise InvalidImage("the picture is damaged and cannot be decoded; save it again") from error
