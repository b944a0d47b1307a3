"""What a picture's metadata says about its making: everything that is needed to draw it again.

The prompt is private and only kept if asked for; pictures that were used are known by the hash of their pixels and
files of weights by the hash of their bytes, never by their names or paths.
"""

import base64
import binascii
import zlib
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from licht.core.errors import InvalidPrompt, InvalidRequest
from licht.core.request import MAX_SEED, Role

MAX_TEXT_BYTES: Final = 48_000
"""What surely fits into the one segment that JPEG has for it, packet and escapes included."""
_PLAIN_BYTES: Final = 4_000
_MAX_JSON_BYTES: Final = 512 * 1024
_PACKED: Final = "zlib:"

Side = Annotated[int, Field(ge=0, le=100_000)]


class _Part(BaseModel):
    """Frozen; a later version may add fields, which this one does not read."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class UsedPicture(_Part):
    """A reference or a start: the hash of its pixels (see `Picture.content_hash`), its role and strength."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    role: Role | None = None
    strength: float = 1.0


class UsedLora(_Part):
    """An adapter: the hash of its file, and how strongly it acted."""

    weights: str
    strength: float = 1.0
    allow_partial: bool = False


class Recipe(_Part):
    """How one picture was made. `width` and `height` are what was asked for, `prompt` None was not kept."""

    version: str
    model: str
    weights: str
    dtype: str
    quant: str = "none"
    device: str
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    width: Side
    height: Side
    steps: Annotated[int, Field(ge=1)]
    guidance: float | None = None
    finish: str = "none"
    references: tuple[UsedPicture, ...] = ()
    start: UsedPicture | None = None
    mask: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    extend: tuple[Side, Side, Side, Side] | None = None
    loras: tuple[UsedLora, ...] = ()
    prompt: str | None = None
    candidates: Annotated[int, Field(ge=1)] = 1
    """So many pictures were drawn, of which `ranker` chose this one."""
    ranker: str | None = None

    def to_text(self) -> str:
        """One line of ASCII: JSON, packed where it is long. Raises `InvalidPrompt` if the prompt is too long to keep."""
        plain = self.model_dump_json(exclude_defaults=True, ensure_ascii=True)
        text = (
            plain if len(plain) <= _PLAIN_BYTES else _PACKED + base64.b64encode(zlib.compress(plain.encode())).decode()
        )
        if len(text) > MAX_TEXT_BYTES:
            raise InvalidPrompt(
                "the prompt is too long to be kept in the picture's metadata; shorten it, or do not keep it",
                field="prompt",
            )
        return text

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read what `to_text` wrote; files come from anywhere. Raises `InvalidRequest`."""
        try:
            if text.startswith(_PACKED):
                unpacker = zlib.decompressobj()
                data = unpacker.decompress(base64.b64decode(text.removeprefix(_PACKED), validate=True), _MAX_JSON_BYTES)
            else:
                data = text.encode()[:_MAX_JSON_BYTES]
            return cls.model_validate_json(data)
        except (ValidationError, zlib.error, binascii.Error, ValueError) as error:
            raise InvalidRequest(
                "the file says how it was made, but not in a way that can be read; it was altered, or is of a later "
                "version of Licht",
                field="file",
            ) from error
