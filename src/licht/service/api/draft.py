"""A request as any protocol gives it, before anything of it was read or checked against the service."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as data_field
from typing import Any

from licht.core.request import Margins, Role


@dataclass(frozen=True, slots=True)
class Given:
    """A picture as it was sent, as text or as the bytes of a file, and the field that it was sent in."""

    field: str
    value: str | bytes = data_field(repr=False)
    role: Role | None = None
    strength: float = 1.0
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """What is wanted. Sizes in pixels, 0 is automatic; None is the tier's or the model's own."""

    route: str
    prompt: str
    images: tuple[Given, ...] = ()
    start: Given | None = None
    start_strength: float | None = None
    mask: Given | None = None
    mask_is_alpha: bool = False
    """The mask says by its transparency what may change, as OpenAI's API has it."""
    extend: Margins | None = None
    width: int = 0
    height: int = 0
    aspect_ratio: str | None = None
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    candidates: int | None = None
    step_factor: float = 1.0
    """Where nobody says how many steps: so many times what the tier takes."""
    output_format: str | None = None
    file_quality: int | None = None
    """Of JPEG and WebP, 1 to 100; None is the usual one."""
    finish: str | None = None
    upsample: bool | None = None
    safety_tolerance: int = 2
    webhook_url: str | None = None
    webhook_secret: str | None = None
    num: int = 1
    previews: bool = False
    wanted_s: float | None = None
    """The caller waits for the picture, see `NewJob.wanted_s`."""
    idempotency_token: str | None = None
    idempotency_awaits_end: bool = False
    fingerprint: str = data_field(default="", repr=False)
    """A hash of the body, which tells a repeated request from another one under the same token."""


def fingerprint(route: str, body: Mapping[str, Any]) -> str:
    """A hash of a body, whatever the order of its fields."""
    return hashlib.sha256(json.dumps([route, body], sort_keys=True).encode()).hexdigest()
