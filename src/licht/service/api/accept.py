"""From what a caller asked for to a job in the queue: the same way for every protocol."""

import asyncio
import hashlib
import json
import math
import re
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from licht.core.errors import InvalidRequest, Refused
from licht.core.request import MAX_SEED, ImageRequest, Picture, Reference
from licht.core.sizes import MAX_AREA_PX, MIN_SIDE_PX, PIXELS_PER_TOKEN, Size, check_size, floor_to_tokens
from licht.safety.policy import Policy, admit
from licht.service.api.inputs import Inputs
from licht.service.api.parts import Parts
from licht.service.fetch import check_url
from licht.service.keys import Key
from licht.service.metering import MILLI, cost_milli, reported_megapixels
from licht.service.queue.records import Idempotency, Input, NewJob, Outcome, State, Task
from licht.service.settings import Tier

_ASPECT: Final = re.compile(r"([1-9]\d{0,3}):([1-9]\d{0,3})")
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,255}")
_LARGEST_BILLED_INPUT_PX: Final = 4 * 1024 * 1024
"""Larger pictures are scaled down to this before they are used."""
_TYPICAL_STEPS: Final = 20


@dataclass(frozen=True, slots=True)
class Draft:
    """A request as any protocol gives it. `images` are (field, value) pairs in order; sizes in pixels, 0 is automatic."""

    route: str
    prompt: str
    images: tuple[tuple[str, str], ...] = ()
    width: int = 0
    height: int = 0
    aspect_ratio: str | None = None
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    output_format: str | None = None
    safety_tolerance: int = 2
    webhook_url: str | None = None
    webhook_secret: str | None = None
    idempotency_token: str | None = None
    fingerprint: str = field(default="", repr=False)
    """A hash of the body, which tells a repeated request from another one under the same token."""


def fingerprint(route: str, body: Mapping[str, Any]) -> str:
    """A hash of a body, whatever the order of its fields."""
    return hashlib.sha256(json.dumps([route, body], sort_keys=True).encode()).hexdigest()


async def accept(parts: Parts, inputs: Inputs, key: Key, draft: Draft, base_url: str) -> dict[str, Any]:
    """Check, price, admit and queue a request; returns the response, which a repeated request gets again.

    Raises `InvalidRequest` and its kin, `TooManyJobs`, `InsufficientCredits`, `IdempotencyConflict`.
    """
    _check_outside(parts, draft)
    repeat = _idempotency(draft, {})
    if repeat is not None:
        # before any work: what a URL gave the first time may be gone by now
        known = await asyncio.to_thread(parts.store.replay, key.id, repeat)
        if known is not None:
            return _loaded(known.replayed)
    tier = parts.tiers[draft.route]
    # surplus references are no error in this protocol; the result says that they were not used
    pictures = await inputs.read(draft.images[: tier.max_references])
    size = settle_size(draft, tier, pictures[0].size if pictures else None)
    job_id = str(uuid.uuid4())
    seed = draft.seed if draft.seed is not None else secrets.randbelow(2**32)
    return await asyncio.to_thread(_submit, parts, key, draft, tier, (pictures, size, seed, job_id, base_url))


def _loaded(replayed: str | None) -> dict[str, Any]:
    repeated: dict[str, Any] = json.loads(replayed or "{}")
    return repeated


_Made: TypeAlias = tuple[list[Picture], Size, int, str, str]
"""Decoded pictures, size, seed, id of the job, address of this service."""


def _submit(parts: Parts, key: Key, draft: Draft, tier: Tier, made: _Made) -> dict[str, Any]:
    new, response = _build(parts, key, draft, tier, made)
    accepted = parts.store.submit(new)
    return response if accepted.replayed is None else _loaded(accepted.replayed)


def _build(parts: Parts, key: Key, draft: Draft, tier: Tier, made: _Made) -> tuple[NewJob, dict[str, Any]]:
    pictures, size, seed, job_id, base_url = made
    steps = draft.steps if draft.steps is not None else tier.steps
    guidance = draft.guidance if draft.guidance is not None else tier.guidance
    names = [f"image {number}" for number in range(1, len(pictures) + 1)]
    request = ImageRequest(
        prompt=draft.prompt,
        seeds=(seed & MAX_SEED,),
        references=tuple(Reference(picture, name) for picture, name in zip(pictures, names, strict=True)),
        size=size,
        steps=steps,
        guidance=guidance,
    )
    refused = _refused(request, replace(parts.policy, tolerance=draft.safety_tolerance))
    # what the policy refuses is not kept
    stored = [] if refused is not None else [parts.storage.put_picture(picture) for picture in pictures]
    inputs_px = [min(picture.size.area_px, _LARGEST_BILLED_INPUT_PX) for picture in pictures]
    price_milli = cost_milli(tier.first_mp, tier.further_mp, size.area_px, inputs_px)
    response = _response(draft, job_id, base_url, price_milli, (sum(inputs_px), size.area_px))
    new = NewJob(
        id=job_id,
        key_id=key.id,
        route=draft.route,
        task=Task(
            prompt=draft.prompt,
            seed=seed,
            width=size.width,
            height=size.height,
            steps=steps,
            guidance=guidance,
            inputs=tuple(Input(digest, name) for digest, name in zip(stored, names, strict=False)),
            file_format=(draft.output_format or tier.output_format).upper(),
            safety_tolerance=draft.safety_tolerance,
            notes=_notes(draft, tier),
        ),
        work=(size.area_px + sum(inputs_px)) / 1e6 * (steps or _TYPICAL_STEPS),
        cost_milli=price_milli,
        input_px=sum(inputs_px),
        output_px=size.area_px,
        base_url=base_url,
        webhook_url=draft.webhook_url,
        webhook_secret=draft.webhook_secret,
        idempotency=_idempotency(draft, response),
        outcome=refused,
    )
    return new, response


def _notes(draft: Draft, tier: Tier) -> tuple[str, ...]:
    given = len(draft.images)
    if given <= tier.max_references:
        return ()
    return (f"{given} pictures were given and {draft.route} takes {tier.max_references}: the first ones were used",)


def _refused(request: ImageRequest, policy: Policy) -> Outcome | None:
    """The first look of the door; the worker looks again."""
    try:
        admit(request, policy)
    except Refused as error:
        return Outcome(State.MODERATED, error_code="request_moderated", error=error.message)
    return None


def _response(draft: Draft, job_id: str, base_url: str, price_milli: int, pixels: tuple[int, int]) -> dict[str, Any]:
    response: dict[str, Any] = {
        "id": job_id,
        "polling_url": f"{base_url}/v1/get_result?id={job_id}",
        "cost": price_milli / MILLI,
        "input_mp": reported_megapixels(pixels[0]),
        "output_mp": reported_megapixels(pixels[1]),
    }
    if draft.webhook_url is not None:
        response |= {"status": "Pending", "webhook_url": draft.webhook_url}
    return response


def _check_outside(parts: Parts, draft: Draft) -> None:
    if draft.idempotency_token is not None and _TOKEN.fullmatch(draft.idempotency_token) is None:
        raise InvalidRequest("an Idempotency-Key has 1 to 255 visible ASCII characters", field="Idempotency-Key")
    if draft.webhook_url is not None:
        if not parts.settings.fetch.enabled:
            raise InvalidRequest("webhooks are switched off here; poll for the result", field="webhook_url")
        try:
            check_url(draft.webhook_url)
        except InvalidRequest as error:
            raise InvalidRequest(error.message, field="webhook_url") from error


def _idempotency(draft: Draft, response: dict[str, Any]) -> Idempotency | None:
    if draft.idempotency_token is None:
        return None
    return Idempotency(draft.idempotency_token, draft.fingerprint, json.dumps(response))


def settle_size(draft: Draft, tier: Tier, reference: Size | None) -> Size:
    """The size to draw. Explicit pixels win over a ratio, that over the first picture, that over the tier's default.

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
        ratio = ratio or (reference or default).aspect
        width = draft.width or draft.height * ratio
        height = draft.height or draft.width / ratio
        return check_size(_whole(width, height))
    if ratio is not None:
        area_px = default.area_px
        return check_size(_whole(math.sqrt(area_px * ratio), math.sqrt(area_px / ratio)))
    if reference is not None:
        scale = min(1.0, math.sqrt(MAX_AREA_PX / reference.area_px))
        return check_size(_whole(reference.width * scale, reference.height * scale))
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
