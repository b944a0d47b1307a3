"""Where a picture comes from: what `licht verify` says, over HTTP."""

import asyncio
import hashlib
from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, ValidationError

from licht.core.errors import InvalidImage, InvalidRequest
from licht.safety.examine import examine
from licht.service.api.auth import needs
from licht.service.api.bodies import Image
from licht.service.api.draft import Given
from licht.service.api.inputs import Inputs
from licht.service.api.parts import Parts, key_of, parts_of
from licht.service.keys import Key, Scope

_FILES: Final = ("image/png", "image/jpeg", "image/webp", "application/octet-stream")


class VerifyBody(BaseModel):
    """A picture, as the file that it is."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    image: Image


class KnownView(BaseModel):
    """The released picture that this is, or looks like: `distance` of 256 bits of a perceptual hash; time since 1970.

    `job` is told where the very file came out of one of the key's own jobs.
    """

    job: str | None
    created_at: float
    distance: int


class Verdict(BaseModel):
    """Credentials, watermark (None: this installation has no key yet), perceptual hash, and whether the two agree."""

    c2pa: dict[str, Any]
    watermark: dict[str, Any] | None
    pdq: str | dict[str, Any] | None
    agrees: bool | None
    known: KnownView | None


def router() -> APIRouter:
    """The route."""
    made = APIRouter(tags=["verify"])
    schema = VerifyBody.model_json_schema()
    files = {name: {"schema": {"type": "string", "format": "binary"}} for name in _FILES}
    content = {"application/json": {"schema": schema}, **files}
    made.add_api_route(
        "/v1/verify",
        verify_picture,
        methods=["POST"],
        response_model=Verdict,
        openapi_extra={"requestBody": {"required": True, "content": content}},
    )
    return made


@needs(Scope.GENERATE)
async def verify_picture(request: Request) -> Verdict:
    """Read a picture's content credentials and look for this installation's watermark."""
    parts, key = parts_of(request), key_of(request)
    inputs: Inputs = request.app.state.inputs
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _FILES:
        data = inputs.checked(await request.body(), "body")
    else:
        data = await inputs.read_file(key.id, Given("image", _image(await request.body())))
    async with request.app.state.examining:
        return await asyncio.to_thread(_verdict, parts, key, data)


def _image(text: bytes) -> str:
    try:
        return VerifyBody.model_validate_json(text).image
    except ValidationError as error:
        raise InvalidRequest(
            'send the file itself (content-type: image/png) or {"image": IMAGE} as JSON', field="image"
        ) from error


def _verdict(parts: Parts, key: Key, data: bytes) -> Verdict:
    tools = parts.policy.tools
    try:
        report = examine(data, tools.known_watermark(), tools.anchors() or None, registry=tools.registry)
    except InvalidRequest as error:
        raise InvalidImage(error.message, field="image") from error
    job = parts.gallery.job_of_file(key.id, hashlib.sha256(data).hexdigest())
    record = report["known"]
    if job is not None:
        report["known"] = KnownView(job=job.id, created_at=job.created_at, distance=0)
    elif record is not None:
        report["known"] = KnownView(job=None, created_at=record["at"], distance=record["distance"])
    return Verdict(**report)
