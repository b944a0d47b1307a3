"""The only path to a picture: admit, draw, release. The command line, Python and the worker all come through here."""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from licht.core.errors import InvalidImage, InvalidRequest
from licht.core.request import MAX_IMAGES, ImageRequest, ImageResult, LoraUse, Progress, Reference
from licht.core.sizes import Size, parse_size, require_whole
from licht.engine.engine import Engine
from licht.safety import policy as door
from licht.safety.images import from_pil, open_reference
from licht.safety.policy import Policy, Released
from licht.safety.provenance import Ingredient, Making, weights_hash

Source = str | Path | Image.Image | Reference
"""What can be given as a reference: a path, a Pillow image, or a reference that is already decoded."""
Lora = str | Path | LoraUse
"""What can be given as a LoRA: a path, a path and a strength as FILE:STRENGTH, or both in full."""


@dataclass(frozen=True, slots=True)
class Result:
    """One released picture and how it was made."""

    seed: int
    width: int
    height: int
    native_size: Size
    steps: int
    guidance: float | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    released: Released = field(repr=False)
    drawn: ImageResult = field(repr=False)
    policy: Policy = field(repr=False)
    making: Making = field(default=Making(), repr=False)

    @property
    def image(self) -> Image.Image:
        """The picture as released: exactly what `save` writes as PNG."""
        return self.released.picture()

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write the picture in the format of the suffix. Raises `OutputExists`, `OutputFailed`, `InvalidRequest`."""
        target = Path(path)
        door.check_output(target, overwrite)
        wanted = door.format_of(target)
        released = self.released
        if wanted != released.file_format:
            released = door.release(self.drawn.picture, self.policy, wanted, self.making)
        door.write(released, target, overwrite)
        return target


class Model:
    """A model that is ready to draw, behind the door of one policy."""

    def __init__(self, engine: Engine, policy: Policy) -> None:
        """Draw with `engine` under `policy`."""
        self.engine = engine
        self.policy = policy
        self._weights_hash: str | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.engine.variant.name

    def stream(self, request: ImageRequest, file_format: str = "PNG") -> Iterator[Progress | Result]:
        """Draw `request`, yielding progress and released results. Closing the iterator cancels within one step."""
        door.admit(request, self.policy)
        events = self.engine.run(request)
        try:
            for event in events:
                yield self._release(event, file_format, request) if isinstance(event, ImageResult) else event
        finally:
            events.close()

    def generate(
        self,
        prompt: str,
        *,
        images: Source | Sequence[Source] = (),
        size: tuple[int, int] | str | None = None,
        seed: int | None = None,
        num: int = 1,
        steps: int | None = None,
        guidance: float | None = None,
        native_only: bool = False,
        loras: Sequence[Lora] = (),
    ) -> list[Result]:
        """Draw `prompt` `num` times, with consecutive seeds from `seed` (default: a random one).

        `images` are references in order, the first is image 1; a single one may be given as it is. `size` is (width, height) in pixels or "WIDTHxHEIGHT".
        `loras` are adapter files, "FILE" or "FILE:STRENGTH".
        Raises `InvalidRequest` and its kin for anything that cannot be drawn.
        """
        request = ImageRequest(
            prompt=prompt,
            seeds=seeds_from(seed, num),
            references=tuple(reference_from(source, n) for n, source in enumerate(_listed(images), start=1)),
            size=_size_from(size),
            steps=steps,
            guidance=guidance,
            native_only=native_only,
            loras=tuple(lora_from(lora) for lora in loras),
        )
        return [event for event in self.stream(request) if isinstance(event, Result)]

    def _release(self, drawn: ImageResult, file_format: str, request: ImageRequest) -> Result:
        making = self._making(request)
        return Result(
            seed=drawn.seed,
            width=drawn.picture.width,
            height=drawn.picture.height,
            native_size=drawn.native_size,
            steps=drawn.steps,
            guidance=drawn.guidance,
            warnings=drawn.warnings,
            notes=drawn.notes,
            released=door.release(drawn.picture, self.policy, file_format, making),
            drawn=drawn,
            policy=self.policy,
            making=making,
        )

    def _making(self, request: ImageRequest) -> Making:
        """What the credentials will say; nothing is hashed where the policy wants bare pixels."""
        if self.policy.level is door.Level.OFF:
            return Making(self.name)
        if self._weights_hash is None:
            self._weights_hash = weights_hash(self.engine.files.transformer.paths)
        ingredients = tuple(Ingredient(reference.file, reference.media_type) for reference in request.references)
        return Making(self.name, self._weights_hash, ingredients, payload=secrets.randbits(64))


def seeds_from(seed: int | None, num: int) -> tuple[int, ...]:
    """`num` consecutive seeds from `seed`, or from a random one. Raises `InvalidRequest` for none or too many."""
    require_whole(num, "num")
    if not 1 <= num <= MAX_IMAGES:
        raise InvalidRequest(f"{num} pictures asked for; ask for 1 to {MAX_IMAGES}", field="num")
    first = secrets.randbelow(2**32) if seed is None else seed
    require_whole(first, "seed")
    return tuple(range(first, first + num))


def reference_from(source: Source, number: int) -> Reference:
    """Read one reference; `number` counts from 1, for messages. Raises `InvalidImage`."""
    if isinstance(source, Reference):
        return source
    if isinstance(source, Image.Image):
        return Reference(from_pil(source, f"image {number}"), f"image {number}")
    if isinstance(source, str | Path):
        return open_reference(Path(source))
    raise InvalidImage(f"image {number} is a {type(source).__name__}; pass a path or a Pillow image", field="images")


def _listed(images: object) -> Sequence[Source]:
    if isinstance(images, str | Path | Image.Image | Reference):
        return (images,)
    if not isinstance(images, Sequence):
        raise InvalidImage(f"images is a {type(images).__name__}; pass a list of paths or pictures", field="images")
    return images


def lora_from(lora: Lora, allow_partial: bool = False) -> LoraUse:
    """Read "FILE" or "FILE:STRENGTH"; a colon that no number follows belongs to the name."""
    if isinstance(lora, LoraUse):
        return lora
    path, _, strength = str(lora).rpartition(":")
    if path and not Path(lora).exists():
        try:
            return LoraUse(Path(path), float(strength), allow_partial)
        except ValueError:
            pass
    return LoraUse(Path(lora), allow_partial=allow_partial)


def _size_from(size: object) -> Size | None:
    if size is None:
        return None
    if isinstance(size, str):
        return parse_size(size)
    if not isinstance(size, Sequence) or len(size) != 2:
        raise InvalidRequest(f"size {size!r} is no pair; use (width, height) or 'WIDTHxHEIGHT'", field="size")
    width, height = size
    return Size(width, height)
