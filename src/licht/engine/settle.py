"""From what was asked to what will be done: defaults filled in, contradictions refused, sizes settled."""

from collections.abc import Sequence
from dataclasses import dataclass

from licht.core.errors import InvalidRequest
from licht.core.request import ImageRequest, Picture
from licht.core.sizes import MAX_ASPECT, MIN_SIDE_PX, Size, check_size, native_size
from licht.engine.pictures import prepare_references
from licht.engine.stages import Place
from licht.engine.start import Canvas, canvas_of
from licht.model.variants import Kind, Variant


@dataclass(frozen=True, slots=True)
class Settled:
    """A request with every choice made. `native` is drawn, then enlarged to `size` where they differ.

    `references` are those that count for something, prepared, and `places` say where each of them stands. `canvas` is
    there if the request begins with a picture.
    """

    request: ImageRequest
    references: tuple[Picture, ...]
    places: tuple[Place, ...]
    size: Size
    native: Size
    steps: int
    guidance: float | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    canvas: Canvas | None = None


def settle(request: ImageRequest, variant: Variant) -> Settled:
    """Make every choice that the request leaves open. Raises `InvalidRequest` for what this model cannot do."""
    guidance = _guidance(request, variant)
    canvas = canvas_of(request, variant)
    _check_count(request, variant, 0 if canvas is None or canvas.shown is None else 1)
    prepared = prepare_references(request.references, variant)
    if canvas is None:
        size = request.size or _default_size(prepared, variant)
        native = native_size(size, variant.trained_sizes)
        smaller = native != size
    else:
        size, native = canvas.whole.size, canvas.picture.size
        smaller = native != canvas.padded
    warnings = []
    if smaller:
        if request.native_only:
            raise InvalidRequest(
                f"{variant.name} was trained up to {_largest(variant)}, {size} was asked for; "
                f"ask for {native} or drop --native-only",
                field="size",
            )
        trained = f"{variant.name} was trained up to {_largest(variant)}"
        warnings.append(f"{trained}: drawn at {native}, enlarged to {size}")
    used = [
        (picture, Place(number, reference.strength))
        for number, (picture, reference) in enumerate(zip(prepared, request.references, strict=True), start=1)
        if reference.strength > 0
    ]
    if canvas is not None and canvas.shown is not None:
        used.append((canvas.shown, Place(len(prepared) + 1, offset=canvas.shown_at)))
    return Settled(
        request=request,
        references=tuple(picture for picture, _ in used),
        places=tuple(place for _, place in used),
        size=size,
        native=native,
        steps=request.steps or variant.default_steps,
        guidance=guidance,
        warnings=tuple(warnings),
        canvas=canvas,
    )


def _check_count(request: ImageRequest, variant: Variant, shown: int) -> None:
    """`shown` is 1 if the model sees the start picture as one more reference."""
    count = len(request.references)
    if count + shown <= variant.max_references:
        return
    if count > variant.max_references or not shown:
        raise InvalidRequest(
            f"{count} reference images for {variant.name}, which takes at most {variant.max_references}; "
            "leave some out",
            field="images",
        )
    raise InvalidRequest(
        f"{count} reference images and the picture to change, for {variant.name}, which takes at most "
        f"{variant.max_references} in all; leave some out",
        field="images",
    )


def _largest(variant: Variant) -> Size:
    """The largest size that the model was trained on."""
    return max(variant.trained_sizes, key=lambda size: size.area_px)


def _guidance(request: ImageRequest, variant: Variant) -> float | None:
    if request.guidance is None:
        return variant.default_guidance if variant.takes_guidance else None
    if not variant.takes_guidance:
        raise InvalidRequest(
            f"{variant.name} is distilled and takes no guidance scale; leave --guidance out or use a base or dev model",
            field="guidance",
        )
    return request.guidance


def _default_size(references: Sequence[Picture], variant: Variant) -> Size:
    """The size of the first reference, as the official code has it, else the model's own."""
    if not references:
        return variant.default_size
    width, height = (max(side_px, MIN_SIDE_PX) for side_px in (references[0].width, references[0].height))
    # cutting an elongated picture down to whole tokens can make it longer than may be drawn
    return check_size(Size(min(width, MAX_ASPECT * height), min(height, MAX_ASPECT * width)))


def uses_two_passes(variant: Variant, guidance: float | None) -> bool:
    """Whether each step needs an unconditional pass: base models with a scale other than 1."""
    return variant.kind is Kind.BASE and guidance is not None and guidance != 1.0
