"""What callers send: the fields that all routes share, with their ranges, and how they become a draft."""

import json
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


class SubmitBody(PictureBody):
    """A picture to draw. `prompt` is text, or a structured prompt as an object or as JSON text."""

    prompt: Prompt
    webhook_url: Annotated[str, Field(min_length=1, max_length=2083, pattern=r"^[hH][tT][tT][pP][sS]?://")] | None = (
        None
    )
    webhook_secret: Annotated[str, Field(max_length=1000)] | None = None
    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None

    @field_validator("webhook_secret")
    @classmethod
    def _fits_a_header(cls, value: str | None) -> str | None:
        if value is not None and not (value.isascii() and value.isprintable()):
            raise ValueError("use printable ASCII characters: it is sent as a header")
        return value


class JobBody(SubmitBody):
    """The same, with the tier to use and what only the native routes have."""

    model: Annotated[str, Field(max_length=100)] = "flux-2-pro"
    num: Annotated[int, Field(ge=1, le=MAX_NUM)] = 1
    previews: bool = False


def draft_of(route: str, body: SubmitBody, token: str | None) -> Draft:
    """A body as any protocol's request. Raises `InvalidRequest` for what this route does not take."""
    return drawn(
        route,
        body,
        body.prompt,
        webhook_url=body.webhook_url,
        webhook_secret=body.webhook_secret,
        num=body.num if isinstance(body, JobBody) else 1,
        previews=isinstance(body, JobBody) and body.previews,
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
    return Draft(
        route=route,
        prompt=prompt,
        images=body.images(),
        start=Given("start", body.start) if body.start else None,
        start_strength=body.start_strength,
        mask=Given("mask", body.mask) if body.mask else None,
        extend=_margins(body.extend),
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


def _margins(extend: ExtendBody | None) -> Margins | None:
    if extend is None or not any((extend.left, extend.top, extend.right, extend.bottom)):
        return None
    return Margins(extend.left, extend.top, extend.right, extend.bottom)
