"""What callers send: the fields that all routes share, with their ranges, and how they become a draft."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator

from licht.core.errors import InvalidRequest
from licht.core.request import MAX_REFERENCE_STRENGTH, MAX_STEPS, Margins, Role
from licht.core.sizes import MAX_SIDE_PX
from licht.safety.policy import HIGHEST_TOLERANCE
from licht.service.api.draft import Draft, Given, fingerprint

MAX_CANDIDATES: Final = 8
MAX_NUM: Final = 10
_MAX_INPUTS: Final = 10
_MAX_PROMPT: Final = 32_768 * 4
_STRICTER: Final = "flux-2-"
_LONGEST_IMAGE: Final = 256 * 2**20

Image = Annotated[
    str,
    Field(
        max_length=_LONGEST_IMAGE,
        description="base64, a data URI, an http(s) URL, reference:ID of a kept picture, or job:ID of a finished job",
    ),
]
Side = Annotated[int, Field(ge=0, le=100_000)]
Margin = Annotated[int, Field(ge=0, le=MAX_SIDE_PX)]


def _as_text(value: object) -> object:
    """A structured prompt may come as an object; from here on it is its JSON text."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value


Band = Annotated[int, Field(ge=0, le=2048)]
Prompt = Annotated[
    str,
    BeforeValidator(_as_text),
    Field(max_length=_MAX_PROMPT),
    WithJsonSchema({"anyOf": [{"type": "string", "maxLength": _MAX_PROMPT}, {"type": "object"}]}),
]
Finish = Literal["none", "phone", "film"]


class Section(BaseModel):
    """A part of a body. Unknown fields are ignored, as the hosted API does."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ReferenceBody(Section):
    """A reference with a role and a strength; 1 is as the model was trained, 0 not at all."""

    image: Image
    role: Role | None = None
    strength: Annotated[float, Field(ge=0, le=MAX_REFERENCE_STRENGTH, allow_inf_nan=False)] = 1.0
    name: Annotated[str, Field(min_length=1, max_length=100)] | None = None


class ExtendBody(Section):
    """Pixels to add around `start`."""

    left: Margin = 0
    top: Margin = 0
    right: Margin = 0
    bottom: Margin = 0


class PictureBody(Section):
    """Everything about a picture but its prompt: the fields of all routes, and Licht's own beside them."""

    input_image: Image | None = None
    input_image_2: Image | None = None
    input_image_3: Image | None = None
    input_image_4: Image | None = None
    input_image_5: Image | None = None
    input_image_6: Image | None = None
    input_image_7: Image | None = None
    input_image_8: Image | None = None
    input_image_9: Image | None = None
    input_image_10: Image | None = None
    image_prompt: Image | None = None
    references: Annotated[list[ReferenceBody], Field(max_length=_MAX_INPUTS)] | None = None
    start: Image | None = None
    start_strength: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    mask: Image | None = None
    extend: ExtendBody | None = None
    seed: Annotated[int, Field(ge=0, le=2**64 - 1)] | None = None
    width: Side | None = 0
    height: Side | None = 0
    aspect_ratio: Annotated[str, Field(max_length=20)] | None = None
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    guidance: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] | None = None
    candidates: Annotated[int, Field(ge=1, le=MAX_CANDIDATES)] | None = None
    safety_tolerance: Annotated[int, Field(ge=0, le=6)] = 2
    output_format: Literal["jpeg", "png", "webp"] | None = None
    finish: Finish | None = None
    prompt_upsampling: bool | None = None
    disable_pup: bool = False

    def images(self) -> tuple[Given, ...]:
        """Every reference that is there, in order; empty text is none."""
        fields = ["input_image", *(f"input_image_{number}" for number in range(2, _MAX_INPUTS + 1)), "image_prompt"]
        plain = [Given(name, value) for name in fields if (value := getattr(self, name))]
        listed = [
            Given(f"references.{number}.image", each.image, each.role, each.strength, each.name)
            for number, each in enumerate(self.references or ())
        ]
        return (*plain, *listed)

    def beginning(self) -> Given | None:
        """The picture to begin with, if there is one."""
        return Given("start", self.start) if self.start else None

    def masked(self) -> tuple[Given | None, bool]:
        """The mask, if there is one, and whether its transparency says what may change."""
        return (Given("mask", self.mask) if self.mask else None), False

    def margins(self) -> Margins | None:
        """What to add around it, if anything."""
        return _margins(self.extend) if self.extend is not None else None


class SubmitBody(PictureBody):
    """A picture to draw. `prompt` is text, or a structured prompt as an object or as JSON text."""

    prompt: Prompt
    webhook_url: Annotated[str, Field(min_length=1, max_length=2083, pattern=r"^[hH][tT][tT][pP][sS]?://")] | None = (
        None
    )
    webhook_secret: Annotated[str, Field(max_length=1000)] | None = None
    previews: bool = False
    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None

    @field_validator("webhook_secret")
    @classmethod
    def _fits_a_header(cls, value: str | None) -> str | None:
        if value is not None and not (value.isascii() and value.isprintable()):
            raise ValueError("use printable ASCII characters: it is sent as a header")
        return value


class FlexBody(SubmitBody):
    """flux-2-flex: steps and guidance belong to the caller, guidance within the range of the hosted API."""

    guidance: Annotated[float, Field(ge=1.5, le=10, allow_inf_nan=False)] | None = None


class UltraBody(SubmitBody):
    """flux-pro-1.1-ultra: sizes by their ratio."""

    aspect_ratio: Annotated[str, Field(max_length=20)] | None = "16:9"


class FillBody(SubmitBody):
    """flux-pro-1.0-fill: draws where `mask` is white; without a mask, where `image` is transparent."""

    prompt: Prompt = ""
    image: Image
    steps: Annotated[int, Field(ge=15, le=MAX_STEPS)] | None = None
    guidance: Annotated[float, Field(ge=1.5, le=100, allow_inf_nan=False)] | None = None

    def beginning(self) -> Given | None:
        """The picture to change."""
        return Given("image", self.image)

    def masked(self) -> tuple[Given | None, bool]:
        """The mask, else the picture's own transparency."""
        return (Given("mask", self.mask), False) if self.mask else (Given("image", self.image), True)


class ExpandBody(FillBody):
    """flux-pro-1.0-expand: draws around `image`."""

    top: Band = 0
    bottom: Band = 0
    left: Band = 0
    right: Band = 0

    def masked(self) -> tuple[Given | None, bool]:
        """Everything that is new is drawn, and nothing else."""
        return None, False

    def margins(self) -> Margins | None:
        """What to add around the picture. Raises `InvalidRequest` where that is nothing."""
        return Margins(self.left, self.top, self.right, self.bottom)


OWN_BODIES: Final[Mapping[str, type[SubmitBody]]] = MappingProxyType(
    {
        "flux-2-flex": FlexBody,
        "flux-pro-1.1-ultra": UltraBody,
        "flux-pro-1.0-fill": FillBody,
        "flux-pro-1.0-expand": ExpandBody,
    }
)
"""Routes with fields or ranges of their own."""


def body_of(route: str) -> type[SubmitBody]:
    """What a route takes."""
    return OWN_BODIES.get(route, SubmitBody)


class JobBody(SubmitBody):
    """The same, with the tier to use and what only the native routes have."""

    model: Annotated[str, Field(max_length=100)] = "flux-2-pro"
    num: Annotated[int, Field(ge=1, le=MAX_NUM)] = 1


def draft_of(route: str, body: SubmitBody, token: str | None) -> Draft:
    """A body as any protocol's request. Raises `InvalidRequest` for what this route does not take."""
    return drawn(
        route,
        body,
        body.prompt,
        webhook_url=body.webhook_url,
        webhook_secret=body.webhook_secret,
        num=body.num if isinstance(body, JobBody) else 1,
        previews=body.previews,
        idempotency_token=token,
        fingerprint=fingerprint(route, body.model_dump(mode="json")) if token is not None else "",
    )


def drawn(
    route: str,
    body: PictureBody,
    prompt: str,
    *,
    webhook_url: str | None = None,
    webhook_secret: str | None = None,
    num: int = 1,
    previews: bool = False,
    idempotency_token: str | None = None,
    fingerprint: str = "",
) -> Draft:
    """A picture's fields and a prompt as a draft. Raises `InvalidRequest`."""
    # the older routes have one level more, which means the same here
    highest = HIGHEST_TOLERANCE if route.startswith(_STRICTER) else HIGHEST_TOLERANCE + 1
    if body.safety_tolerance > highest:
        raise InvalidRequest(f"safety_tolerance goes from 0 to {highest} here", field="safety_tolerance")
    mask, mask_is_alpha = body.masked()
    return Draft(
        route=route,
        prompt=prompt,
        images=body.images(),
        start=body.beginning(),
        start_strength=body.start_strength,
        mask=mask,
        mask_is_alpha=mask_is_alpha,
        extend=body.margins(),
        width=body.width or 0,
        height=body.height or 0,
        aspect_ratio=body.aspect_ratio,
        seed=body.seed,
        steps=body.steps,
        guidance=body.guidance,
        candidates=body.candidates,
        output_format=body.output_format,
        finish=body.finish,
        upsample=False if body.disable_pup else body.prompt_upsampling,
        safety_tolerance=min(body.safety_tolerance, HIGHEST_TOLERANCE),
        webhook_url=webhook_url,
        webhook_secret=webhook_secret,
        num=num,
        previews=previews,
        idempotency_token=idempotency_token,
        fingerprint=fingerprint,
    )


def _margins(extend: ExtendBody) -> Margins | None:
    if not any((extend.left, extend.top, extend.right, extend.bottom)):
        return None
    return Margins(extend.left, extend.top, extend.right, extend.bottom)
