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
from licht.safety.image_filter import FilterFailed
from licht.safety.prompt_filter import screen
from licht.safety.tools import Decision, Tools


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
    policy = Policy(level)
    if level is not Level.OFF:
        _check_start(policy)
    return policy


def _check_start(policy: Policy) -> None:
    """Find out now, not at the first picture, whether everything is there that the policy promises."""
    tools = policy.tools
    if policy.level is Level.STRICT and tools.trust.image_filter is None:
        raise NotAvailable(
            "policy strict needs a prompt filter and an image filter, and none is configured for images; "
            "set LICHT_IMAGE_FILTER, or use --policy default",
            field="policy",
        )
    if tools.trust.image_filter is not None and tools.image_filter is None:
        raise NotAvailable("the image filter cannot be opened; check LICHT_IMAGE_FILTER", field="policy")
    _ = tools.block_lists, tools.credentials


def admit(request: ImageRequest, policy: Policy) -> None:
    """Let a request in, or raise: `InvalidPrompt` for a prompt that is no text, `Refused` by a filter."""
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
    _screen_prompt(request, policy)
    for number, reference in enumerate(request.references, start=1):
        _screen_picture(reference.picture, policy, "input", f"image {number}")
    if request.start is not None:
        _screen_picture(request.start.picture, policy, "input", "the start picture")


def _screen_prompt(request: ImageRequest, policy: Policy) -> None:
    findings = screen(request.prompt, edits=bool(request.references or request.start))
    refused = [finding for finding in findings if finding.refused_at(policy.tolerance)]
    for finding in findings:
        action = "refused" if finding in refused else "let pass"
        row = Decision("prompt", action, finding.rule, finding.category, 1.0, policy.tolerance)
        policy.tools.audit(row)
    if refused:
        reasons = ", ".join(dict.fromkeys(finding.category for finding in refused))
        raise Refused(f"Request Moderated: {reasons}; ask for something else", field="prompt")


def _screen_picture(picture: Picture, policy: Policy, stage: str, name: str) -> None:
    """Refuse a picture that is on a block-list or that the classifier names."""
    tools = policy.tools
    if tools.block_lists:
        for block_list in tools.block_lists:
            match = block_list.match(picture)
            if match is not None:
                row = Decision(
                    stage, "refused", f"block-list {block_list.name}", "known picture", match, policy.tolerance
                )
                tools.audit(row)
                raise _moderated(stage, name, "known picture")
    if tools.image_filter is None:
        return
    try:
        verdict = tools.image_filter.judge(picture, policy.tolerance)
    except FilterFailed as error:
        action = "refused" if tools.trust.fail_closed else "let pass"
        tools.audit(Decision(stage, action, f"image filter failed: {error}", "filter failure", 0.0, policy.tolerance))
        if tools.trust.fail_closed:
            raise _moderated(stage, name, "the image filter failed") from error
        return
    if verdict.refused:
        tools.audit(
            Decision(stage, "refused", f"classifier {verdict.label}", "image filter", verdict.score, policy.tolerance)
        )
        raise _moderated(stage, name, verdict.label)


def _moderated(stage: str, name: str, reason: str) -> Refused:
    if stage == "input":
        return Refused(f"Request Moderated: {name}: {reason}; use another picture", field="images")
    return Refused(f"Content Moderated: {reason}; ask for something else")


def release(
    picture: Picture, policy: Policy, file_format: str = "PNG", making: provenance.Making | None = None
) -> Released:
    """Let a picture out: screened, marked, encoded and signed, unless the policy is off.

    `making` says how it was made; without a payload in it, the watermark gets a random one. Raises `Refused`,
    `InvalidOutput`, `OutputFailed`.
    """
    if file_format not in _FORMATS.values():
        raise InvalidOutput(f"format {file_format!r} is unknown; use PNG, JPEG or WEBP", field="output")
    if policy.level is Level.OFF:
        bare = provenance.metadata(making, marked=False) if making and making.recipe else None
        return Released(_encoded(picture, file_format, bare), file_format)
    _screen_picture(picture, policy, "output", "the result")
    tools = policy.tools
    making = making or provenance.Making()
    if making.payload is None:
        making = replace(making, payload=secrets.randbits(64))
    making = replace(making, training=tools.trust.training)
    assert making.payload is not None  # noqa: S101 - set two lines above
    marked = tools.watermark.embed(picture, making.payload)
    if marked is picture:
        making = replace(making, payload=None)  # too small to hold the mark: the manifest must not claim it
    data = _encoded(marked, file_format, provenance.metadata(making))
    return Released(tools.signer.sign(data, file_format, making), file_format)


def release_preview(picture: Picture, policy: Policy, making: provenance.Making) -> Released | None:
    """Let the preview of an unfinished picture out as any other, or keep it back: None.

    A preview that a filter would refuse is not shown, but does not end the run: it is half noise, and the finished
    picture is judged for itself.
    """
    try:
        return release(picture, policy, "PNG", making)
    except Refused:
        return None


def _encoded(picture: Picture, file_format: str, xmp: bytes | None) -> bytes:
    image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    buffer = io.BytesIO()
    if file_format == "PNG":
        text = PngInfo()
        if xmp is not None:
            text.add_itxt("XML:com.adobe.xmp", xmp.decode())
        image.save(buffer, "PNG", compress_level=4, pnginfo=text)
    elif file_format == "JPEG":
        image.save(buffer, "JPEG", quality=95, subsampling=0, xmp=xmp)
    else:
        image.save(buffer, "WEBP", quality=95, method=4, xmp=xmp or b"")
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
