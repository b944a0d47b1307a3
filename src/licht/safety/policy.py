"""The one door. Nothing is drawn before `admit`; no byte leaves except through `release` and `write`."""

import io
import os
import secrets
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from PIL import Image

from licht.core.errors import InvalidOutput, InvalidPrompt, InvalidRequest, NotAvailable, OutputExists, OutputFailed
from licht.core.request import ImageRequest, Picture


class Level(StrEnum):
    """How much the door does."""

    OFF = "off"
    """Bare pixels: nothing is screened, marked or signed."""
    DEFAULT = "default"
    """Everything that this installation has."""
    STRICT = "strict"
    """Like default, and refuses to work where a filter has nothing behind it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the door does, settled once at the start."""

    level: Level = Level.DEFAULT


@dataclass(frozen=True, slots=True)
class Released:
    """An encoded picture that may leave: the bytes of a file, and the format they are in."""

    data: bytes
    file_format: str

    def picture(self) -> Image.Image:
        """The picture as anyone who gets the file sees it."""
        image = Image.open(io.BytesIO(self.data))
        image.load()
        return image


_FORMATS: Final = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
MAX_PROMPT_CHARACTERS: Final = 32_768


def parse_policy(name: str) -> Policy:
    """The policy called `name`. Raises `InvalidRequest` if there is none, `NotAvailable` if it cannot be kept here."""
    try:
        level = Level(name)
    except ValueError:
        choices = ", ".join(level.value for level in Level)
        raise InvalidRequest(f"policy {name!r} is unknown; choose one of {choices}", field="policy") from None
    if level is Level.STRICT:
        raise NotAvailable(
            "policy strict needs a prompt filter and an image filter, and none is configured; use --policy default",
            field="policy",
        )
    return Policy(level)


def admit(request: ImageRequest, policy: Policy) -> None:
    """Let a request in, or raise: `InvalidPrompt` for a prompt that is no text, `Refused` by a filter.

    No filter is part of this installation yet, so `default` and `off` admit alike.
    """
    del policy
    if len(request.prompt) > MAX_PROMPT_CHARACTERS:
        raise InvalidPrompt(
            f"the prompt has {len(request.prompt):,} characters; use at most {MAX_PROMPT_CHARACTERS:,}", field="prompt"
        )
    for number, character in enumerate(request.prompt, start=1):
        # control characters, and what is left of bytes that are no text
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r":
            raise InvalidPrompt(
                f"the prompt holds control characters (U+{ord(character):04X} is character {number}); send plain text",
                field="prompt",
            )


def release(picture: Picture, policy: Policy, file_format: str = "PNG") -> Released:
    """Let a picture out: encode it. Later versions mark and sign it here, unless the policy is off."""
    del policy
    image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    buffer = io.BytesIO()
    if file_format == "PNG":
        image.save(buffer, "PNG", compress_level=4)
    elif file_format == "JPEG":
        image.save(buffer, "JPEG", quality=95, subsampling=0)
    elif file_format == "WEBP":
        image.save(buffer, "WEBP", quality=95, method=4)
    else:
        raise InvalidOutput(f"format {file_format!r} is unknown; use PNG, JPEG or WEBP", field="output")
    return Released(buffer.getvalue(), file_format)


def format_of(path: Path) -> str:
    """The format that a file name asks for. Raises `InvalidOutput` for an unknown suffix."""
    if path.suffix.lower() not in _FORMATS:
        raise InvalidOutput(f"{path} has no suffix of a known format; use {', '.join(_FORMATS)}", field="output")
    return _FORMATS[path.suffix.lower()]


def check_output(path: Path, overwrite: bool) -> None:
    """Raise before any work if `path` could not be written at the end: `InvalidOutput` or `OutputExists`."""
    format_of(path)
    try:
        if path.is_dir():
            raise InvalidOutput(f"{path} is a folder; name a file", field="output")
        if not path.parent.is_dir():
            raise InvalidOutput(f"the folder {path.parent} does not exist; create it or choose another", field="output")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise InvalidOutput(f"the folder {path.parent} cannot be written; choose another", field="output")
        taken = _is_taken(path)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InvalidOutput(f"{path} cannot be written ({reason}); choose another name", field="output") from error
    if taken and not overwrite:
        raise OutputExists(f"{path} exists; choose another name or pass --overwrite", field="output")


def _is_taken(path: Path) -> bool:
    """Whether something has this name, be it a link that leads nowhere. Raises `OSError`, `ValueError`."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def write(released: Released, path: Path, overwrite: bool = False) -> None:
    """Write a released picture atomically: the file is complete or absent.

    Raises `InvalidOutput`, `OutputExists` or `OutputFailed`; a failed write leaves nothing behind.
    """
    check_output(path, overwrite)
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(released.data)
            file.flush()
            os.fsync(file.fileno())
        _publish(temporary, path, overwrite)
    except OSError as error:
        raise OutputFailed(
            f"{path} cannot be written ({error.strerror or error}); make room or choose another place", field="output"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _publish(temporary: Path, path: Path, overwrite: bool) -> None:
    """Give the finished file its name; a name taken meanwhile is not overwritten."""
    if overwrite:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise OutputExists(f"{path} exists; choose another name or pass --overwrite", field="output") from None
    except OSError:
        # a file system without hard links: the check and the rename cannot be one step there
        check_output(path, overwrite)
        temporary.replace(path)
