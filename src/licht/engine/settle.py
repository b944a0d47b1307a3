"""From what was asked to what will be done: defaults filled in, contradictions refused, sizes settled."""

from dataclasses import dataclass

from licht.core.errors import InvalidRequest, NotAvailable
from licht.core.request import ImageRequest, Picture
from licht.core.sizes import MAX_ASPECT, MIN_SIDE_PX, Size, check_size, native_size
from licht.engine.pictures import prepare_references
from licht.model.variants import Kind, Variant


@dataclass(frozen=True, slots=True)
class Settled:
    """A request with every choice made. `native` is drawn, then enlarged to `size` where they differ."""

    request: ImageRequest
    references: tuple[Picture, ...]
    size: Size
    native: Size
    steps: int
    guidance: float | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()


def settle(request: ImageRequest, variant: Variant) -> Settled:
    """Make every choice that the request leaves open. Raises `InvalidRequest` for what this model cannot do."""
    if len(request.references) > variant.max_references:
        raise InvalidRequest(
            f"{len(request.references)} reference images for {variant.name}, which takes at most "
            f"{variant.max_references}; leave some out",
            field="images",
        )
    if request.start is not None:
        raise NotAvailable("a start picture cannot be drawn from yet; leave it out", field="start")
    guidance = _guidance(request, variant)
    references = tuple(prepare_references(request.references, variant))
    size = request.size or _default_size(references, variant)
    native = native_size(size, variant.trained_sizes)
    warnings = []
    if native != size:
        if request.native_only:
            raise InvalidRequest(
                f"{variant.name} was trained up to {_largest(variant)}, {size} was asked for; "
                f"ask for {native} or drop --native-only",
                field="size",
            )
        trained = f"{variant.name} was trained up to {_largest(variant)}"
        warnings.append(f"{trained}: drawn at {native}, enlarged to {size}")
    steps = request.steps or variant.default_steps
    return Settled(request, references, size, native, steps, guidance, tuple(warnings))


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


def _default_size(references: tuple[Picture, ...], variant: Variant) -> Size:
    """The size of the first reference, as the official code has it, else the model's own."""
    if not references:
        return variant.default_size
    width, height = (max(side_px, MIN_SIDE_PX) for side_px in (references[0].width, references[0].height))
    # cutting an elongated picture down to whole tokens can make it longer than may be drawn
    return check_size(Size(min(width, MAX_ASPECT * height), min(height, MAX_ASPECT * width)))


def uses_two_passes(variant: Variant, guidance: float | None) -> bool:
    """Whether each step needs an unconditional pass: base models with a scale other than 1."""
    return variant.kind is Kind.BASE and guidance is not None and guidance != 1.0
