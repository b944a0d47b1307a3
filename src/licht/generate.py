"""The only path to a picture: admit, draw, release. The command line, Python and the worker all come through here."""

import secrets
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from PIL import Image

from licht import __version__
from licht.core.aspects import asked_size
from licht.core.errors import InvalidImage, InvalidPrompt, InvalidRequest, LichtError, Refused
from licht.core.prompt import PromptStyle, SettledPrompt, settle_prompt
from licht.core.protocols import Ranker, SteppedRanker
from licht.core.recipe import Recipe, UsedLora, UsedPicture
from licht.core.request import (
    MASKED_STRENGTH,
    MAX_IMAGES,
    START_STRENGTH,
    ImageRequest,
    ImageResult,
    LoraUse,
    Margins,
    Mask,
    Picture,
    Preview,
    Progress,
    Reference,
    Role,
    Start,
    parse_margins,
)
from licht.core.sizes import Size, parse_size, require_whole
from licht.engine.engine import Engine
from licht.engine.latents import Latents
from licht.finish import Finish, apply_finish, parse_finish
from licht.safety import policy as door
from licht.safety.images import from_pil, open_picture, open_reference
from licht.safety.policy import Policy, Released
from licht.safety.provenance import Ingredient, Making, weights_hash
from licht.upsample.ask import Upsampled
from licht.upsample.ask import upsample as ask_for

Source = str | Path | Image.Image | Reference
"""What can be given as a reference: a path, a Pillow image, or a reference that is already decoded."""
MaskSource = str | Path | Image.Image | Mask
"""What can be given as a mask: a path, a Pillow image, or a mask that is already decoded."""
_RANK_TICKS: Final = 100
T = TypeVar("T")
Lora = str | Path | LoraUse
"""What can be given as a LoRA: a path, a path and a strength as FILE:STRENGTH, or both in full."""


@dataclass(frozen=True, slots=True)
class Result:
    """One released picture and how it was made."""

    seed: int
    prompt: str
    """What the model read: written out, mentions and roles put into words."""
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
    recipe: Recipe | None = field(default=None, repr=False)
    candidates: int = 1
    ranker: str | None = None
    """What chose this picture out of several `candidates`."""

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


@dataclass(frozen=True, slots=True)
class Delivery:
    """How pictures are handed out: their finish, whether the file keeps the prompt, and whether a prompt may be cut."""

    finish: Finish = Finish.NONE
    keep_prompt: bool = False
    strict_length: bool = False
    quality: int | None = None
    """Of JPEG and WebP, 1 to 100; None is the usual one."""
    ranker: Ranker | None = None
    """Of several pictures only the one that it likes best is handed out."""
    payload: int | None = None
    """What the watermark is to hold, 64 bits; None draws something for each picture."""


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

    def under(self, policy: Policy) -> "Model":
        """The same engine behind the door of another policy."""
        model = Model(self.engine, policy)
        model._weights_hash = self.weights_hash  # read once, not for every view
        return model

    def stream(
        self, request: ImageRequest, file_format: str = "PNG", delivery: Delivery | None = None
    ) -> Iterator[Progress | Preview | Result]:
        """Draw `request`, yielding progress and released results. Closing the iterator cancels within one step.

        If the request asks for previews, released ones come after each step, except those that the door keeps back.
        """
        delivery = delivery or Delivery()
        settled = self.check(request, delivery)
        read = replace(request, prompt=settled.text)
        events = self.engine.run(read)
        candidates: list[ImageResult] = []
        try:
            for event in events:
                if isinstance(event, ImageResult):
                    drawn = replace(event, warnings=settled.warnings + event.warnings)
                    if delivery.ranker is not None and len(request.seeds) > 1:
                        candidates.append(drawn)
                    else:
                        yield self._release(drawn, file_format, request, delivery, settled.text)
                elif isinstance(event, Progress):
                    yield event
                else:
                    yield from self._release_preview(event)
        finally:
            events.close()
        if delivery.ranker is not None and candidates:
            order = yield from best_first(delivery.ranker, read, candidates)
            yield self._release_first(order, file_format, request, delivery, settled.text)

    def generate(  # noqa: PLR0913 - one keyword for everything that can be asked for
        self,
        prompt: str,
        *,
        images: Source | Sequence[Source] = (),
        size: tuple[int, int] | str | None = None,
        aspect: str | None = None,
        megapixels: float | None = None,
        seed: int | None = None,
        num: int = 1,
        steps: int | None = None,
        guidance: float | None = None,
        native_only: bool = False,
        loras: Lora | Sequence[Lora] = (),
        roles: Role | str | Sequence[Role | str | None] = (),
        strengths: float | Sequence[float] = (),
        start: Source | Start | None = None,
        strength: float | None = None,
        mask: MaskSource | None = None,
        extend: Margins | str | None = None,
        finish: Finish | str = Finish.NONE,
        keep_prompt: bool = False,
        strict_length: bool = False,
        upsample: bool = False,
        upsample_with: str | Path | None = None,
        upsample_model: str = "default",
    ) -> list[Result]:
        """Draw `prompt` `num` times, with consecutive seeds from `seed` (default: a random one).

        `images` are references in order, the first is image 1. `size` is (width, height) in pixels or "WIDTHxHEIGHT";
        in its place `aspect` is a ratio such as "3:2" or "wide", and `megapixels` an area in units of 1024x1024.
        `loras` are adapter files, "FILE" or "FILE:STRENGTH". What may be several and is one needs no list. `roles` and
        `strengths` (0 to 4, 1 as trained) belong to the references one by one. `start` is the picture to begin with and
        `strength` how far it is drawn anew (default: 0.75; 1 with a mask or margins); `mask` is white where it may
        change, `extend` the margins to add, such as "left=256,top=64". `finish` is none, phone or film; `keep_prompt`
        writes the prompt into the file too; `strict_length` refuses a prompt of which the model would read only a part.
        `upsample` lets a language model write the prompt out first: the model's own, or what `upsample_with` names, the
        address of a chat endpoint (which calls its model `upsample_model`) or the folder of a dev model; each result
        says which `prompt` was used.
        Raises `InvalidRequest` and its kin for anything that cannot be drawn.
        """
        adapters: Sequence[Lora] = _several(loras, "loras")
        request = ImageRequest(
            prompt=prompt,
            seeds=seeds_from(seed, num),
            references=references_from(images, roles, strengths),
            size=self._asked_size(size, aspect, megapixels),
            steps=steps,
            guidance=guidance,
            native_only=native_only,
            loras=tuple(lora_from(lora) for lora in adapters),
            start=start_from(start, strength, masked=mask is not None or extend is not None),
            mask=None if mask is None else mask_from(mask),
            extend=None if extend is None else margins_from(extend),
        )
        delivery = Delivery(parse_finish(finish), keep_prompt, strict_length)
        said: tuple[str, ...] = ()
        if upsample:
            (written,) = self.upsample([request], upsample_with, upsample_model)
            request, said = replace(request, prompt=written.prompt), written.warnings
        events = self.stream(request, delivery=delivery)
        return [replace(event, warnings=said + event.warnings) for event in events if isinstance(event, Result)]

    def _asked_size(self, size: object, aspect: str | None, megapixels: float | None) -> Size | None:
        if size is not None and (aspect is not None or megapixels is not None):
            raise InvalidRequest("size says it all; leave aspect and megapixels out, or size", field="size")
        variant = self.engine.variant
        return _size_from(size) or asked_size(aspect, megapixels, variant.default_size, variant.trained_sizes)

    def upsample(
        self,
        requests: Sequence[ImageRequest],
        upsample_with: str | Path | None = None,
        upsample_model: str = "default",
    ) -> list[Upsampled]:
        """The prompts of `requests`, written out by a language model that has seen their references.

        `upsample_with` None is the model's own, which is loaded once and let go of again; see `generate`. Every request
        is checked first, so that a prompt that is refused is sent nowhere. Raises `NotAvailable`, `EndpointFailed`.
        """
        # imported here: who does not ask for it pays for no HTTP client
        from licht.upsample.choose import Own, open_upsampler

        for request in requests:
            self.check(request)
        files = self.engine.files
        own = Own(files.parts.text_encoder, files.parts.tokenizer, str(self.engine.placement.device))
        upsampler = open_upsampler(upsample_with, upsample_model, own, requests[0].seeds[0])
        try:
            return [
                ask_for(request.prompt, [one.picture for one in request.references], upsampler) for request in requests
            ]
        finally:
            upsampler.close()

    def check(self, request: ImageRequest, delivery: Delivery | None = None) -> SettledPrompt:
        """What the model will read for `request`, or the error that `stream` would begin with."""
        settled = self.settle_prompt(request)
        door.admit(replace(request, prompt=settled.text), self.policy)
        if delivery is not None and delivery.strict_length:
            self._check_length(settled.text)
        if delivery is not None and delivery.keep_prompt:
            # now, not when everything is drawn: it may be too long for the file
            self._recipe(request, delivery, request.seeds[0]).to_text()
        return settled

    def settle_prompt(self, request: ImageRequest) -> SettledPrompt:
        """The text that this model reads for `request`. Raises `InvalidPrompt`."""
        style = PromptStyle.JSON if self.engine.variant.structured_prompts else PromptStyle.PROSE
        return settle_prompt(request.prompt, request.references, style)

    def _check_length(self, prompt: str) -> None:
        tokenizer = self.engine.tokenizer
        found = tokenizer([prompt]).lengths[0]
        if found > tokenizer.length:
            raise InvalidPrompt(
                f"the prompt is too long for {self.name}: {tokenizer.length} of {found} tokens would be kept; "
                "shorten it, or let it be cut",
                field="prompt",
            )

    def encode(self, picture: Picture) -> Latents:
        """The latents of a picture, which every model with the same autoencoder understands. Raises `InvalidRequest`."""
        door.admit(ImageRequest("", (0,), start=Start(picture)), self.policy)
        return self.engine.encode(picture)

    def decode(self, latents: Latents, file_format: str = "PNG") -> Released:
        """The picture of latents, through the door. Raises `InvalidRequest` for those of another autoencoder."""
        making = Making(self.name, weights_hash(self.engine.files.autoencoder.paths))
        return door.release(self.engine.decode(latents), self.policy, file_format, making)

    def _release(
        self,
        drawn: ImageResult,
        file_format: str,
        request: ImageRequest,
        delivery: Delivery,
        prompt: str,
        candidates: int = 1,
    ) -> Result:
        ranker = delivery.ranker.name if delivery.ranker is not None and candidates > 1 else None
        drawn = replace(drawn, picture=apply_finish(drawn.picture, delivery.finish, drawn.seed))
        recipe = self._recipe(request, delivery, drawn.seed, drawn)
        recipe = recipe.model_copy(update={"candidates": candidates, "ranker": ranker})
        making = replace(self._making(request), recipe=recipe.to_text(), candidates=candidates, ranker=ranker)
        if delivery.payload is not None and making.payload is not None:
            making = replace(making, payload=delivery.payload)
        return Result(
            seed=drawn.seed,
            prompt=prompt,
            width=drawn.picture.width,
            height=drawn.picture.height,
            native_size=drawn.native_size,
            steps=drawn.steps,
            guidance=drawn.guidance,
            warnings=drawn.warnings,
            notes=drawn.notes,
            released=door.release(
                drawn.picture, self.policy, file_format, making, quality=delivery.quality or door.USUAL_QUALITY
            ),
            drawn=drawn,
            policy=self.policy,
            making=making,
            recipe=recipe,
            candidates=candidates,
            ranker=ranker,
        )

    def _release_first(
        self,
        candidates: Sequence[ImageResult],
        file_format: str,
        request: ImageRequest,
        delivery: Delivery,
        prompt: str,
    ) -> Result:
        """The first of `candidates` that the door lets out. Raises `Refused` if it lets out none."""
        for number, drawn in enumerate(candidates, start=1):
            try:
                result = self._release(drawn, file_format, request, delivery, prompt, len(candidates))
            except Refused:
                if number == len(candidates):
                    raise
                continue
            kept_back = (f"{number - 1} of {len(candidates)} candidates were kept back",) if number > 1 else ()
            return replace(result, warnings=result.warnings + kept_back)
        raise LichtError("there are no candidates to choose from")

    def _release_preview(self, drawn: Preview) -> Iterator[Preview]:
        """The preview as it may be seen, or nothing if the door keeps it back."""
        released = door.release_preview(drawn.image, self.policy, Making(self.name))
        if released is not None:
            shown = released.picture().convert("RGB")
            yield replace(drawn, image=Picture(shown.width, shown.height, shown.tobytes()), file=released.data)

    def _making(self, request: ImageRequest) -> Making:
        """What the credentials will say."""
        if self.policy.level is door.Level.OFF:
            return Making(self.name)
        pictures: tuple[Start | Reference, ...] = request.references
        if request.start is not None:
            pictures = (request.start, *pictures)
        ingredients = tuple(Ingredient(picture.file, picture.media_type) for picture in pictures)
        return Making(self.name, self.weights_hash, ingredients, payload=secrets.randbits(64))

    @property
    def weights_hash(self) -> str:
        """Which weights the transformer has; read from its files on first use."""
        if self._weights_hash is None:
            self._weights_hash = weights_hash(self.engine.files.transformer.paths)
        return self._weights_hash

    def _recipe(self, request: ImageRequest, delivery: Delivery, seed: int, drawn: ImageResult | None = None) -> Recipe:
        """What is needed to draw the picture again; before it is drawn, with the model's numbers left at their least."""
        start, extend = request.start, request.extend
        placement = self.engine.placement
        return Recipe(
            version=__version__,
            model=self.name,
            weights=self.weights_hash,
            dtype=str(placement.dtype).removeprefix("torch."),
            quant=placement.quant or "none",
            device=placement.device.type,
            seed=seed,
            width=drawn.picture.width if drawn else 0,
            height=drawn.picture.height if drawn else 0,
            steps=drawn.steps if drawn else 1,
            guidance=drawn.guidance if drawn else None,
            finish=delivery.finish.value,
            references=tuple(
                UsedPicture(sha256=one.picture.content_hash(), role=one.role, strength=one.strength)
                for one in request.references
            ),
            start=UsedPicture(sha256=start.picture.content_hash(), strength=start.strength)
            if start is not None
            else None,
            mask=request.mask.content_hash() if request.mask is not None else None,
            extend=(extend.left, extend.top, extend.right, extend.bottom) if extend is not None else None,
            loras=tuple(
                UsedLora(weights=weights_hash([use.path]), strength=use.strength, allow_partial=use.allow_partial)
                for use in request.loras
            ),
            prompt=request.prompt if delivery.keep_prompt else None,
        )


def _followed(asking: Generator[float, None, Sequence[float]]) -> Generator[Progress, None, Sequence[float]]:
    """The scores that `asking` ends with; the parts that it yields on the way become progress."""
    with closing(asking):
        while True:
            try:
                part = next(asking)
            except StopIteration as done:
                scores: Sequence[float] = done.value
                return scores
            yield Progress("rank", int(part * _RANK_TICKS), _RANK_TICKS)


def best_first(
    ranker: Ranker, request: ImageRequest, candidates: Sequence[ImageResult]
) -> Generator[Progress, None, list[ImageResult]]:
    """`candidates` in the order of `ranker`, the best first. Raises `LichtError` for one that cannot count."""
    given = (request.prompt, [drawn.picture for drawn in candidates], request.references)
    yield Progress("rank", 0, _RANK_TICKS)
    if isinstance(ranker, SteppedRanker):
        scores = yield from _followed(ranker.rank(*given))
    else:
        scores = ranker.score(*given)
    if len(scores) != len(candidates):
        raise LichtError(f"the ranker {ranker.name} gave {len(scores)} scores for {len(candidates)} pictures")
    yield Progress("rank", _RANK_TICKS, _RANK_TICKS)
    return [candidates[number] for number in sorted(range(len(scores)), key=lambda number: -scores[number])]


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


def references_from(
    images: Source | Sequence[Source],
    roles: Role | str | Sequence[Role | str | None] = (),
    strengths: float | Sequence[float] = (),
) -> tuple[Reference, ...]:
    """Read references and give them roles and strengths, as many as there are references or none at all.

    Raises `InvalidImage`, and `InvalidRequest` for an unknown role, a strength out of range or too few of either.
    """
    found = [reference_from(source, number) for number, source in enumerate(_listed(images), start=1)]
    roles, strengths = _several(roles, "roles"), _several(strengths, "strengths")
    for name, given in (("roles", roles), ("strengths", strengths)):
        if given and len(given) != len(found):
            raise InvalidRequest(
                f"{len(given)} {name} for {len(found)} references; give one for each or none", field=name
            )
    if roles:
        found = [replace(one, role=role_from(role)) for one, role in zip(found, roles, strict=True)]
    if strengths:
        found = [replace(one, strength=strength) for one, strength in zip(found, strengths, strict=True)]
    return tuple(found)


def role_from(role: Role | str | None) -> Role | None:
    """The role of that name; None and "" are none. Raises `InvalidRequest` for an unknown one."""
    try:
        return Role(role) if role else None
    except ValueError:
        raise InvalidRequest(f"role {role!r} is unknown; use one of {', '.join(Role)}", field="roles") from None


def start_from(source: "Source | Start | None", strength: float | None = None, masked: bool = False) -> Start | None:
    """Read the picture to begin with; `strength` None means the default, which a mask or margins change.

    Raises `InvalidImage`, and `InvalidRequest` for a strength out of range or without a picture.
    """
    if source is None:
        if strength is not None:
            raise InvalidRequest("strength needs a picture to begin with; give start", field="strength")
        return None
    if isinstance(source, Start):
        return source if strength is None else replace(source, strength=strength)
    if not isinstance(source, str | Path | Reference | Image.Image):
        raise InvalidImage(f"the start is a {type(source).__name__}; pass a path or a Pillow image", field="start")
    read = reference_from(source, 1) if not isinstance(source, Image.Image) else Reference(from_pil(source, "start"))
    settled = strength if strength is not None else MASKED_STRENGTH if masked else START_STRENGTH
    return Start(read.picture, settled, read.name, read.file, read.media_type)


def mask_from(source: "MaskSource") -> Mask:
    """Read a mask: white changes, black stays, by the luminance of any picture. Raises `InvalidImage`."""
    if isinstance(source, Mask):
        return source
    if not isinstance(source, str | Path | Image.Image):
        raise InvalidImage(f"the mask is a {type(source).__name__}; pass a path or a Pillow image", field="mask")
    picture = open_picture(Path(source)) if isinstance(source, str | Path) else from_pil(source, "the mask")
    gray = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb).convert("L")
    return Mask(picture.width, picture.height, gray.tobytes())


def margins_from(extend: Margins | str) -> Margins:
    """Read "left=256,top=64". Raises `InvalidRequest`."""
    if not isinstance(extend, str | Margins):
        raise InvalidRequest(f"extend is a {type(extend).__name__}; use a text such as left=256,top=64", field="extend")
    return parse_margins(extend) if isinstance(extend, str) else extend


def _several(given: T | Sequence[T], name: str) -> Sequence[T]:
    """What may be one or several, as a list. A text is one thing. Raises `InvalidRequest`."""
    if isinstance(given, Sequence) and not isinstance(given, str):
        return given
    if isinstance(given, str | int | float | Path | LoraUse):
        return (given,)
    raise InvalidRequest(f"{name} is a {type(given).__name__}; pass a list", field=name)


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
