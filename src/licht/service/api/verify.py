"""Where a picture comes from: what `licht verify` says, over HTTP."""

import asyncio
import hashlib
import re
from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, ValidationError

from licht.core.errors import InvalidImage, InvalidRequest, NotAuthenticated, NotAvailable
from licht.safety.examine import examine
from licht.service.api.auth import needs
from licht.service.api.bodies import Image
from licht.service.api.draft import Given
from licht.service.api.inputs import Inputs
from licht.service.api.parts import Parts, parts_of
from licht.service.keys import Key, Scope

_ELSEWHERE: Final = re.compile(r"[a-z]+:(?!image/)", re.IGNORECASE)
"""Not the file itself but where it lies: an address, a job, a reference."""
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


@needs(Scope.GENERATE, unless=lambda settings: settings.verify.open)
async def verify_picture(request: Request) -> Verdict:
    """Read a picture's content credentials and look for this installation's watermark."""
    parts = parts_of(request)
    inputs: Inputs = request.app.state.inputs
    examining: asyncio.Semaphore = request.app.state.examining
    key: Key | None = getattr(request.state, "key", None)
    if key is None and examining.locked():
        raise NotAvailable("another picture is being looked at; try again in a moment")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _FILES:
        data = inputs.checked(await request.body(), "body")
    else:
        sent = _image(await request.body())
        if key is None and _ELSEWHERE.match(sent):
            raise NotAuthenticated("without a key only the file itself is looked at; send its bytes")
        data = await inputs.read_file(key.id if key is not None else "", Given("image", sent))
    async with examining:
        return await asyncio.to_thread(_verdict, parts, key, data)


def _image(text: bytes) -> str:
    try:
        return VerifyBody.model_validate_json(text).image
    except ValidationError as error:
        raise InvalidRequest(
            'send the file itself (content-type: image/png) or {"image": IMAGE} as JSON', field="image"
        ) from error


def _verdict(parts: Parts, key: Key | None, data: bytes) -> Verdict:
    tools = parts.policy.tools
    try:
        report = examine(data, tools.known_watermark(), tools.anchors() or None, registry=tools.registry)
    except InvalidRequest as error:
        raise InvalidImage(error.message, field="image") from error
    job = parts.gallery.job_of_file(key.id, hashlib.sha256(data).hexdigest()) if key is not None else None
    record = report["known"]
    if job is not None:
        report["known"] = KnownView(job=job.id, created_at=job.created_at, distance=0)
    elif record is not None:
        report["known"] = KnownView(job=None, created_at=record["at"], distance=record["distance"])
    return Verdict(**report)
