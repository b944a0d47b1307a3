"""The one door. Nothing is drawn before `admit`; no byte leaves except through `release` and `write`."""

import io
import os
import secrets
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from licht.core.errors import (
    InvalidOutput,
    InvalidPrompt,
    InvalidRequest,
    NotAvailable,
    OutputExists,
    OutputFailed,
    Refused,
)
from licht.core.request import ImageRequest, Picture
from licht.safety import provenance
from licht.safety.images import file_format_of, open_picture
from licht.safety.screening import screen_picture, screen_request
from licht.safety.tools import Tools


class Level(StrEnum):
    """How much the door does."""

    OFF = "off"
    """Bare pixels: nothing is screened, marked or signed; a recipe that is given stands beside them."""
    DEFAULT = "default"
    """Everything that this installation has."""
    STRICT = "strict"
    """Like default, and refuses to work where a filter has nothing behind it."""


DEFAULT_TOLERANCE: Final = 2
HIGHEST_TOLERANCE: Final = 5


@dataclass(frozen=True, slots=True)
class Policy:
    """What the door does, settled once at the start.

    `tolerance` goes from 0 (refuses most) to 5, as in the hosted API; some things are refused at every tolerance.
    `tools` hold keys, lists and classifiers; they take no part in comparing policies.
    """

    level: Level = Level.DEFAULT
    tolerance: int = DEFAULT_TOLERANCE
    tools: Tools = field(default_factory=Tools, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance <= HIGHEST_TOLERANCE:
            raise InvalidRequest(
                f"tolerance {self.tolerance} is out of range; use 0 to {HIGHEST_TOLERANCE}", field="safety_tolerance"
            )

    def for_key(self, key_id: str, tolerance: int) -> "Policy":
        """This policy for one caller, who asks for `tolerance`: the operator's table for that key moves it."""
        overrides = self.tools.overrides
        for name in (key_id, "default"):
            if name in overrides:
                level = Level(overrides[name].policy or self.level)
                return replace(self, level=level, tolerance=overrides[name].settled(tolerance))
        return replace(self, tolerance=tolerance)

    def moved(self, level: str | None, tolerance: int) -> "Policy":
        """This policy at what `for_key` has settled elsewhere; `level` None leaves the level as it is."""
        return replace(self, level=self.level if level is None else Level(level), tolerance=tolerance)

    @property
    def levels(self) -> dict[Level, tuple[str, ...]]:
        """Every level in use, and which keys have it of their own."""
        own = {name: Level(each.policy) for name, each in self.tools.overrides.items() if each.policy}
        used = {self.level, *own.values()}
        return {level: tuple(name for name in own if own[name] is level) for level in Level if level in used}


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
USUAL_QUALITY: Final = 95


def parse_policy(name: str, make_keys: bool = True) -> Policy:
    """The policy called `name`. Raises `InvalidRequest` if there is none, `NotAvailable` if it cannot be kept here.

    Without `make_keys` nothing is written: an installation that has no keys yet stays without.
    """
    try:
        level = Level(name)
    except ValueError:
        choices = ", ".join(level.value for level in Level)
        raise InvalidRequest(f"policy {name!r} is unknown; choose one of {choices}", field="policy") from None
    policy = Policy(level)
    if set(policy.levels) != {Level.OFF}:
        _check_start(policy, make_keys)
    return policy


def _check_start(policy: Policy, make_keys: bool) -> None:
    """Find out now, not at the first picture, whether everything is there that the policy promises."""
    tools = policy.tools
    if Level.STRICT in policy.levels and tools.trust.image_filter is None:
        keys = policy.levels[Level.STRICT]
        whose = "" if policy.level is Level.STRICT else f" (of key {keys[0]} in {tools.trust.overrides})"
        raise NotAvailable(
            f"policy strict{whose} needs a prompt filter and an image filter, and none is configured for images; "
            "set LICHT_IMAGE_FILTER, or use the policy default",
            field="policy",
        )
    tools.open_all(make_keys)


def notices(policy: Policy) -> tuple[str, ...]:
    """What this policy does without, in words; for whoever starts a service."""
    exempt = policy.levels.get(Level.OFF, ())
    of_keys = tuple(f"key {name}: policy off: nothing is screened, marked or signed" for name in exempt)
    if policy.level is Level.OFF:
        return ("policy off: nothing is screened, marked or signed", *of_keys)
    trust = policy.tools.trust
    missing = {
        "no classifier stands behind the image filter (LICHT_IMAGE_FILTER)": trust.image_filter is None,
        "no list of known pictures is blocked (LICHT_BLOCK_LISTS)": not trust.block_lists,
        "text in input pictures is not read (LICHT_OCR)": trust.reader is None,
        "signatures are not time-stamped (LICHT_TIME_STAMP_URL)": trust.time_stamp_url is None,
        "the first start will make keys to sign and to mark with": not policy.tools.has_keys,
        "the signing chain is private: others see an unknown signer (LICHT_SIGNING_CHAIN)": trust.chain is None,
        "a filter that fails lets everything pass (LICHT_FILTER_FAILURE)": not trust.fail_closed,
    }
    return (*of_keys, *(f"policy {policy.level.value}: {text}" for text, holds in missing.items() if holds))


def admit(request: ImageRequest, policy: Policy, early: bool = False) -> None:
    """Let a request in, or raise: `InvalidPrompt` for a prompt that is no text, `Refused` by a filter.

    `early` is for processes that answer callers: what is slow or needs torch is left to the one that draws, which asks
    again.
    """
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
    if policy.level is Level.OFF:
        return
    screen_request(request, policy.tools, policy.tolerance, early)


def release(
    picture: Picture,
    policy: Policy,
    file_format: str = "PNG",
    making: provenance.Making | None = None,
    record: bool = True,
    quality: int = USUAL_QUALITY,
) -> Released:
    """Let a picture out: screened, marked, encoded and signed, unless the policy is off.

    `making` says how it was made; without a payload in it, the watermark gets a random one. `quality`, 1 to 100, is
    that of JPEG and WebP. Raises `Refused`, `InvalidOutput`, `OutputFailed`.
    """
    if file_format not in _FORMATS.values():
        raise InvalidOutput(f"format {file_format!r} is unknown; use PNG, JPEG or WEBP", field="output")
    if policy.level is not Level.OFF:
        screen_picture(picture, policy.tools, policy.tolerance, "output")
    return _let_out(picture, policy, file_format, making, record, quality)


def _let_out(
    picture: Picture,
    policy: Policy,
    file_format: str,
    making: provenance.Making | None,
    record: bool,
    quality: int = USUAL_QUALITY,
) -> Released:
    if policy.level is Level.OFF:
        bare = provenance.metadata(making, marked=False) if making and making.recipe else None
        return Released(_encoded(picture, file_format, bare, quality), file_format)
    tools = policy.tools
    making, mark = making or provenance.Making(), tools.watermark
    payload = secrets.randbits(64) if making.payload is None else making.payload
    payload &= (1 << mark.payload_bits) - 1
    marked = mark.embed(picture, payload)
    # a picture that is too small to hold the mark comes back as it was: the manifest must not claim it
    claimed = payload if marked is not picture else None
    making = replace(making, payload=claimed, watermark=mark.algorithm, training=tools.trust.training)
    encoded = _encoded(marked, file_format, provenance.metadata(making), quality)
    data = tools.signer.sign(encoded, file_format, making)
    if record and tools.registry is not None:
        tools.registry.add(marked, making.payload)
    return Released(data, file_format)


def release_preview(picture: Picture, policy: Policy, making: provenance.Making) -> Released | None:
    """Let the preview of an unfinished picture out as any other, or keep it back: None.

    A preview that a filter would refuse is not shown, but does not end the run: it is half noise, and the finished
    picture is judged for itself.
    """
    try:
        return release(picture, policy, "PNG", making, record=False)
    except Refused:
        return None


def convert(data: bytes, policy: Policy, file_format: str) -> Released:
    """A file that was let out before as another kind of file, signed anew with the first one as its parent.

    The pixels were screened then, and bear their mark already. Raises `InvalidImage`, `InvalidOutput`, `OutputFailed`.
    """
    if file_format not in _FORMATS.values():
        raise InvalidOutput(f"format {file_format!r} is unknown; use PNG, JPEG or WEBP", field="format")
    picture, own = open_picture(data), file_format_of(data) or "PNG"
    encoded = _encoded(picture, file_format, _metadata_of(data))
    reading = provenance.read(data, own)
    if policy.level is Level.OFF or reading.state == "none":
        # what was let out bare stays bare
        return Released(encoded, file_format)
    tools = policy.tools
    making = provenance.Making(
        ingredients=(provenance.Ingredient(data, provenance.MEDIA_TYPES[own]),),
        payload=reading.watermark_payload,
        training=tools.trust.training,
        watermark=tools.watermark.algorithm,
        converted=True,
    )
    return Released(tools.signer.sign(encoded, file_format, making), file_format)


def _metadata_of(data: bytes) -> bytes | None:
    """The XMP packet of a file, as it was written before signing."""
    with Image.open(io.BytesIO(data)) as image:
        found = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    return found.encode() if isinstance(found, str) else found


def reissue(picture: Picture, policy: Policy, file_format: str, making: provenance.Making) -> Released:
    """Let out a picture that is put together from others that were let out before: marked and signed, not screened."""
    return _let_out(picture, policy, file_format, making, record=False)


def _encoded(picture: Picture, file_format: str, xmp: bytes | None, quality: int = USUAL_QUALITY) -> bytes:
    image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    buffer = io.BytesIO()
    if file_format == "PNG":
        text = PngInfo()
        if xmp is not None:
            text.add_itxt("XML:com.adobe.xmp", xmp.decode())
        image.save(buffer, "PNG", compress_level=4, pnginfo=text)
    elif file_format == "JPEG":
        image.save(buffer, "JPEG", quality=quality, subsampling=0, xmp=xmp)
    else:
        image.save(buffer, "WEBP", quality=quality, method=4, xmp=xmp or b"")
    return buffer.getvalue()


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
