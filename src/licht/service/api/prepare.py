"""From a draft to a request that can be queued: pictures read, size and steps settled, the price known."""

import math
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from licht.core.errors import InvalidPrompt, InvalidRequest
from licht.core.prompt import PromptStyle, SettledPrompt, settle_prompt
from licht.core.request import (
    MASKED_STRENGTH,
    MAX_SEED,
    START_STRENGTH,
    ImageRequest,
    Mask,
    Picture,
    Reference,
    Start,
)
from licht.core.sizes import MAX_AREA_PX, MIN_SIDE_PX, PIXELS_PER_TOKEN, Size, check_size, floor_to_tokens
from licht.service.api.draft import Draft, Given
from licht.service.api.inputs import Reader
from licht.service.metering import cost_milli
from licht.service.settings import Tier

_ASPECT: Final = re.compile(r"([1-9]\d{0,3}):([1-9]\d{0,3})")
_LARGEST_BILLED_INPUT_PX: Final = 4 * 1024 * 1024
"""Larger pictures are scaled down to this before they are used."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that can be queued, once for each of `seeds` (which may have more bits than an engine takes)."""

    draft: Draft
    tier: Tier
    request: ImageRequest
    size: Size
    seeds: tuple[int, ...]
    candidates: int
    upsample: bool
    finish: str
    inputs_px: tuple[int, ...]
    cost_milli: int
    notes: tuple[str, ...]


async def prepare(reader: Reader, draft: Draft, tier: Tier) -> Prepared:
    """Read and settle `draft`. Raises `InvalidRequest` and its kin, with the field that is to blame."""
    if draft.start is None and draft.images and (draft.mask is not None or draft.extend is not None):
        # who sends one picture and a mask means that picture
        draft = replace(draft, start=draft.images[0], images=draft.images[1:])
    used = draft.images[: tier.max_references]
    references = [await _reference(reader, given, number) for number, given in enumerate(used, start=1)]
    settled = _settled(draft.prompt, references)
    start = await _start(reader, draft)
    mask = None
    if draft.mask is not None:
        mask = await reader.read_mask(draft.mask, draft.mask_is_alpha)
    size = _whole_size(draft, start) or settle_size(
        draft, tier, next((each.picture.size for each in (*((start,) if start else ()), *references)), None)
    )
    seed = draft.seed if draft.seed is not None else secrets.randbelow(2**32)
    steps = draft.steps if draft.steps is not None else tier.steps
    guidance = draft.guidance if draft.guidance is not None else tier.guidance
    request = ImageRequest(
        prompt=draft.prompt,
        seeds=(seed & MAX_SEED,),
        references=tuple(references),
        size=None if _keeps_size(draft) else size,
        steps=steps,
        guidance=guidance,
        start=start,
        mask=mask,
        extend=draft.extend,
        previews=draft.previews,
    )
    inputs_px = _billed((*((start.picture,) if start else ()), *(each.picture for each in references)))
    return Prepared(
        draft=draft,
        tier=tier,
        request=request,
        size=size,
        seeds=tuple((seed + number) % 2**64 for number in range(draft.num)),
        candidates=draft.candidates if draft.candidates is not None else tier.candidates,
        upsample=draft.upsample if draft.upsample is not None else tier.upsample,
        finish=draft.finish or "none",
        inputs_px=inputs_px,
        cost_milli=cost_milli(tier.first_mp, tier.further_mp, size.area_px, inputs_px),
        notes=(*_surplus(draft, tier), *settled.warnings),
    )


def _settled(prompt: str, references: Sequence[Reference]) -> SettledPrompt:
    """Only to find what is wrong with a prompt: how it is worded is for the weights that draw. Raises `InvalidPrompt`."""
    try:
        return settle_prompt(prompt, references, PromptStyle.JSON)
    except InvalidPrompt as error:
        field = "prompt" if error.field in (None, "", "prompt") else f"prompt.{error.field}"
        raise InvalidPrompt(error.message, field=field) from error


async def _reference(reader: Reader, given: Given, number: int) -> Reference:
    picture = await reader.read(given)
    return Reference(picture, given.name or f"image {number}", role=given.role, strength=given.strength)


async def _start(reader: Reader, draft: Draft) -> Start | None:
    if draft.start is None:
        if draft.mask is not None or draft.extend is not None:
            field = "mask" if draft.mask is not None else "extend"
            raise InvalidRequest(f"{field} needs a picture that it changes; send start or input_image", field=field)
        return None
    usual = MASKED_STRENGTH if _keeps_size(draft) else START_STRENGTH
    strength = draft.start_strength if draft.start_strength is not None else usual
    return Start(await reader.read(draft.start), strength)


def _keeps_size(draft: Draft) -> bool:
    """Whether the picture to begin with says what the size is, whole tokens or not."""
    return draft.mask is not None or draft.extend is not None


def _whole_size(draft: Draft, start: Start | None) -> Size | None:
    """The size that a mask or margins leave no choice about. Explicit sides may repeat it. Raises `InvalidRequest`."""
    if start is None or not _keeps_size(draft):
        return None
    size = start.picture.size if draft.extend is None else draft.extend.around(start.picture.size)
    for name, wanted, side in (("width", draft.width, size.width), ("height", draft.height, size.height)):
        if wanted and wanted != side:
            raise InvalidRequest(f"the picture becomes {size} px; leave {name} out", field=name)
    return size


def _surplus(draft: Draft, tier: Tier) -> tuple[str, ...]:
    """Surplus references are no error in this protocol; the result says that they were not used."""
    given = len(draft.images)
    if given <= tier.max_references:
        return ()
    return (f"{given} pictures were given and {draft.route} takes {tier.max_references}: the first ones were used",)


def _billed(pictures: Sequence[Picture]) -> tuple[int, ...]:
    return tuple(min(picture.size.area_px, _LARGEST_BILLED_INPUT_PX) for picture in pictures)


def settle_size(draft: Draft, tier: Tier, given: Size | None) -> Size:
    """The size to draw. Explicit pixels win over a ratio, that over the picture given, that over the tier's default.

    Sides are cut down to multiples of 16, as the hosted API does. Raises `InvalidRequest`.
    """
    for name, side in (("width", draft.width), ("height", draft.height)):
        if side and side < MIN_SIDE_PX:
            raise InvalidRequest(
                f"{name} {side} is too small; use at least {MIN_SIDE_PX}, or 0 for automatic", field=name
            )
    default = Size(tier.width, tier.height)
    if draft.width and draft.height:
        return check_size(floor_to_tokens(draft.width, draft.height))
    ratio = _ratio(draft.aspect_ratio)
    if draft.width or draft.height:
        ratio = ratio or (given or default).aspect
        width = draft.width or draft.height * ratio
        height = draft.height or draft.width / ratio
        return check_size(_whole(width, height))
    if ratio is not None:
        area_px = default.area_px
        return check_size(_whole(math.sqrt(area_px * ratio), math.sqrt(area_px / ratio)))
    if given is not None:
        scale = min(1.0, math.sqrt(MAX_AREA_PX / given.area_px))
        return check_size(_whole(given.width * scale, given.height * scale))
    return check_size(floor_to_tokens(default.width, default.height))


def _ratio(text: str | None) -> float | None:
    if text is None:
        return None
    match = _ASPECT.fullmatch(text.strip())
    if match is None:
        raise InvalidRequest(f"aspect_ratio {text[:20]!r} is not W:H, such as 16:9", field="aspect_ratio")
    return int(match[1]) / int(match[2])


def _whole(width: float, height: float) -> Size:
    """Cut down to whole tokens; what is within a hair of the next one is that one."""
    return Size(
        *(max(MIN_SIDE_PX, int((side + 0.01) // PIXELS_PER_TOKEN) * PIXELS_PER_TOKEN) for side in (width, height))
    )


def stored_mask(mask: Mask) -> Picture:
    """A mask as a gray picture, which is how it is stored."""
    rgb = bytearray(3 * len(mask.gray))
    for channel in range(3):
        rgb[channel::3] = mask.gray
    return Picture(mask.width, mask.height, bytes(rgb))
