"""What is asked of the engine and what comes back. No torch, no Pillow: pixels travel as plain bytes."""

import hashlib
import math
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from licht.core.errors import InvalidRequest
from licht.core.sizes import (
    MAX_AREA_PX,
    MAX_ASPECT,
    MAX_SIDE_PX,
    MIN_SIDE_PX,
    Size,
    ceil_to_tokens,
    check_size,
    require_number,
    require_whole,
)

MAX_STEPS = 50
MAX_SEED = 2**63 - 1
MAX_IMAGES = 64
MAX_LORAS = 16
MAX_LORA_STRENGTH = 10.0
MAX_REFERENCE_STRENGTH: Final = 4.0
PREVIEW_PX: Final = 256
START_STRENGTH: Final = 0.75
"""How far a picture is drawn anew if nobody says: most of its layout stays."""
MASKED_STRENGTH: Final = 1.0
"""The same where a mask or margins say what changes: what changes is drawn from pure noise."""

_SIDES: Final = ("left", "top", "right", "bottom")
_MOST_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Picture:
    """An RGB picture: `rgb` holds height x width x 3 bytes, rows from the top."""

    width: int
    height: int
    rgb: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.rgb) != self.width * self.height * 3:
            raise InvalidRequest(
                f"a {self.width}x{self.height} RGB picture has {self.width * self.height * 3} bytes, "
                f"not {len(self.rgb)}; pass the pixels of one RGB picture"
            )

    @property
    def size(self) -> Size:
        """Width and height in pixels."""
        return Size(self.width, self.height)

    def content_hash(self) -> str:
        """SHA-256 over size and pixels: equal pictures have equal hashes, whatever file they came from."""
        return hashlib.sha256(f"{self.width}x{self.height}:".encode() + self.rgb).hexdigest()


class Role(StrEnum):
    """What a reference is there for. The role is worded into the prompt; the picture itself is used alike."""

    SUBJECT = "subject"
    STYLE = "style"
    BACKGROUND = "background"
    LIGHTING = "lighting"
    POSE = "pose"
    PALETTE = "palette"
    DEPTH = "depth"
    EDGES = "edges"


@dataclass(frozen=True, slots=True)
class Reference:
    """A picture that the result is to draw on, in the order in which prompts count: the first is image 1.

    `file` is the file it came in, if there is one: what it says about its own making is carried on. `strength` says
    how much the picture counts: 1 as the model was trained, 0 not at all (the numbers of the others stay).
    """

    picture: Picture
    name: str = "image"
    file: bytes | None = field(default=None, repr=False, compare=False)
    media_type: str = field(default="image/png", compare=False)
    role: Role | None = None
    strength: float = 1.0

    def __post_init__(self) -> None:
        require_number(self.strength, "strengths")
        if not 0.0 <= self.strength <= MAX_REFERENCE_STRENGTH:
            raise InvalidRequest(
                f"the strength {self.strength} of a reference is out of range; use 0 to {MAX_REFERENCE_STRENGTH:g}",
                field="strengths",
            )


@dataclass(frozen=True, slots=True)
class Start:
    """The picture to begin with, and how much of the way from noise is gone again: 1 is all of it."""

    picture: Picture
    strength: float = START_STRENGTH
    name: str = "start"
    file: bytes | None = field(default=None, repr=False, compare=False)
    media_type: str = field(default="image/png", compare=False)

    def __post_init__(self) -> None:
        require_number(self.strength, "strength")
        if not 0.0 < self.strength <= 1.0:
            raise InvalidRequest(
                f"strength {self.strength} is out of range; use more than 0 and at most 1", field="strength"
            )


@dataclass(frozen=True, slots=True)
class Mask:
    """Where a picture may change: `gray` holds one byte a pixel, rows from the top; 255 changes, 0 stays."""

    width: int
    height: int
    gray: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.gray) != self.width * self.height:
            raise InvalidRequest(
                f"a {self.width}x{self.height} mask has {self.width * self.height} bytes, not {len(self.gray)}; "
                "pass one byte a pixel",
                field="mask",
            )

    @property
    def size(self) -> Size:
        """Width and height in pixels."""
        return Size(self.width, self.height)

    def content_hash(self) -> str:
        """SHA-256 over size and bytes."""
        return hashlib.sha256(f"{self.width}x{self.height}:".encode() + self.gray).hexdigest()


@dataclass(frozen=True, slots=True)
class Margins:
    """Pixels to add around a picture."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def __post_init__(self) -> None:
        for name in _SIDES:
            side_px = getattr(self, name)
            require_whole(side_px, name, field="extend")
            if not 0 <= side_px <= MAX_SIDE_PX:
                raise InvalidRequest(
                    f"extend {name}={side_px} is out of range; use 0 to {MAX_SIDE_PX} px", field="extend"
                )
        if not any((self.left, self.top, self.right, self.bottom)):
            raise InvalidRequest("extend adds nothing; give left, top, right or bottom in pixels", field="extend")

    def around(self, size: Size) -> Size:
        """The size of a picture of `size` with these margins."""
        return Size(self.left + size.width + self.right, self.top + size.height + self.bottom)


def parse_margins(text: str) -> Margins:
    """Read `left=256,top=0` and the like; sides that are not named get nothing. Raises `InvalidRequest`."""
    sides: dict[str, int] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        if name not in _SIDES or not number.isdecimal() or len(number) > _MOST_DIGITS or name in sides:
            raise InvalidRequest(
                f"extend {text!r} is not left=PX,top=PX,right=PX,bottom=PX with each side at most once, "
                "such as left=256,top=64",
                field="extend",
            )
        sides[name] = int(number)
    return Margins(**sides)


def check_drawable(size: Size) -> None:
    """Raise `InvalidRequest` unless a picture of `size`, which need not be whole tokens, can be drawn on."""
    whole = ceil_to_tokens(size.width, size.height)
    if min(size.width, size.height) < MIN_SIDE_PX:
        raise InvalidRequest(f"the picture is {size} px; both sides need at least {MIN_SIDE_PX} px", field="start")
    if whole.area_px > MAX_AREA_PX:
        raise InvalidRequest(
            f"the picture is {size} px, more than {MAX_AREA_PX // 1024**2} megapixels; make it smaller first",
            field="start",
        )
    if max(whole.aspect, 1 / whole.aspect) > MAX_ASPECT:
        raise InvalidRequest(f"the picture is {size} px, longer than {MAX_ASPECT}:1; crop it", field="start")


@dataclass(frozen=True, slots=True)
class LoraUse:
    """An adapter file and how strongly it acts; 1 is as trained, below 0 the other way.

    `allow_partial` uses the keys that fit this model where others do not.
    """

    path: Path
    strength: float = 1.0
    allow_partial: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength) or abs(self.strength) > MAX_LORA_STRENGTH:
            raise InvalidRequest(
                f"LoRA strength {self.strength} is out of range; use -{MAX_LORA_STRENGTH:g} to {MAX_LORA_STRENGTH:g}",
                field="loras",
            )


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One prompt, drawn once per seed.

    `size` None means the size of `start`, else of the first reference, else the model's own default. `steps` and
    `guidance` None mean the model's defaults. `native_only` refuses sizes beyond those that the model was trained on.
    `mask` (of the size of `start`) and `extend` say where `start` changes; elsewhere its pixels stay as they are.
    `previews` asks for a `Preview` after each step.
    """

    prompt: str
    seeds: tuple[int, ...]
    references: tuple[Reference, ...] = ()
    size: Size | None = None
    steps: int | None = None
    guidance: float | None = None
    native_only: bool = False
    loras: tuple[LoraUse, ...] = ()
    start: Start | None = None
    mask: Mask | None = None
    extend: Margins | None = None
    previews: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str):
            raise InvalidRequest(f"the prompt is a {type(self.prompt).__name__}; use a str", field="prompt")
        if not 1 <= len(self.seeds) <= MAX_IMAGES:
            raise InvalidRequest(f"{len(self.seeds)} pictures asked for; ask for 1 to {MAX_IMAGES}", field="num")
        for seed in self.seeds:
            require_whole(seed, "seed")
            if not 0 <= seed <= MAX_SEED:
                raise InvalidRequest(f"seed {seed} is out of range; use 0 to {MAX_SEED}", field="seed")
        if self.size is not None:
            check_size(self.size)
        if self.steps is not None:
            require_whole(self.steps, "steps")
            if not 1 <= self.steps <= MAX_STEPS:
                raise InvalidRequest(f"{self.steps} steps asked for; use 1 to {MAX_STEPS}", field="steps")
        if self.guidance is not None:
            require_number(self.guidance, "guidance")
        if self.guidance is not None and not 0.0 <= self.guidance <= 100.0:
            raise InvalidRequest(f"guidance {self.guidance} is out of range; use 0 to 100", field="guidance")
        if len(self.loras) > MAX_LORAS:
            raise InvalidRequest(f"{len(self.loras)} LoRAs asked for; use at most {MAX_LORAS}", field="loras")
        if len({use.path for use in self.loras}) < len(self.loras):
            raise InvalidRequest("a LoRA is named twice; name it once and give it a strength", field="loras")
        self._check_start()

    def _check_start(self) -> None:
        """A mask and margins belong to a picture; together they say what the result's size is."""
        changed = [name for name in ("mask", "extend") if getattr(self, name) is not None]
        if self.start is None:
            if changed:
                raise InvalidRequest(f"{changed[0]} needs a picture that it changes; give start", field=changed[0])
            return
        start = self.start.picture.size
        if self.size is None or changed:
            check_drawable(self.whole_size or start)
        if self.mask is not None and self.mask.size != start:
            raise InvalidRequest(
                f"the mask is {self.mask.size} px, the picture {start} px; make the mask {start} px", field="mask"
            )
        if self.mask is not None and not any(self.mask.gray) and self.extend is None:
            raise InvalidRequest("the mask is black all over: nothing would change; paint white what may", field="mask")
        if changed and self.size is not None and self.size != self.whole_size:
            raise InvalidRequest(
                f"with {' and '.join(changed)} the picture becomes {self.whole_size} px, not {self.size} px; "
                "leave the size out",
                field="size",
            )

    @property
    def whole_size(self) -> Size | None:
        """The size of the start picture with its margins, which need not be whole tokens; None without one."""
        if self.start is None:
            return None
        size = self.start.picture.size
        return size if self.extend is None else self.extend.around(size)


@dataclass(frozen=True, slots=True)
class Progress:
    """One step forward: `done` of `total` units of a stage, `picture` counting the pictures of the request."""

    stage: str
    done: int
    total: int
    picture: int = 0


@dataclass(frozen=True, slots=True)
class Preview:
    """How picture number `picture` looks after `step` of `total` steps, at most `PREVIEW_PX` px on its longer side.

    From the engine it comes unreleased, with `file` empty; from `generate` it has been through the door, `image` is
    what everyone may see and `file` the same as a PNG file.
    """

    picture: int
    step: int
    total: int
    image: Picture
    file: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class ImageResult:
    """One drawn picture, not yet released: no byte of it may leave except through `safety.policy.release`.

    `native_size` is the size that the model drew at; the picture is larger where it had to be enlarged. `notes` say
    what was done as asked (how many keys of a LoRA were applied), `warnings` what was done otherwise.
    """

    picture: Picture
    seed: int
    native_size: Size
    steps: int
    guidance: float | None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
