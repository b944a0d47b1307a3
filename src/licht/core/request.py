"""What is asked of the engine and what comes back. No torch, no Pillow: pixels travel as plain bytes."""

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path

from licht.core.errors import InvalidRequest
from licht.core.sizes import Size, check_size, require_number, require_whole

MAX_STEPS = 50
MAX_SEED = 2**63 - 1
MAX_IMAGES = 64
MAX_LORAS = 16
MAX_LORA_STRENGTH = 10.0


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


@dataclass(frozen=True, slots=True)
class Reference:
    """A picture that the result is to draw on, in the order in which prompts count: the first is image 1.

    `file` is the file it came in, if there is one: what it says about its own making is carried on.
    """

    picture: Picture
    name: str = "image"
    file: bytes | None = field(default=None, repr=False, compare=False)
    media_type: str = field(default="image/png", compare=False)


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

    `size` None means the size of the first reference, else the model's own default. `steps` and `guidance` None mean
    the model's defaults. `native_only` refuses sizes beyond those that the model was trained on.
    """

    prompt: str
    seeds: tuple[int, ...]
    references: tuple[Reference, ...] = ()
    size: Size | None = None
    steps: int | None = None
    guidance: float | None = None
    native_only: bool = False
    loras: tuple[LoraUse, ...] = ()

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


@dataclass(frozen=True, slots=True)
class Progress:
    """One step forward: `done` of `total` units of a stage, `picture` counting the pictures of the request."""

    stage: str
    done: int
    total: int
    picture: int = 0


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
