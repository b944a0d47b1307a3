"""Where a picture comes from: what `licht verify` says, over HTTP. A worker looks; this process only waits for it."""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, ValidationError

from licht.core.errors import InvalidImage, InvalidRequest, LichtError, NotAuthenticated, NotAvailable, UnknownJob
from licht.service.api.auth import Guarded, needs
from licht.service.api.bodies import Image
from licht.service.api.draft import Given
from licht.service.api.inputs import Inputs
from licht.service.api.parts import Parts, parts_of
from licht.service.keys import Key, Scope
from licht.service.queue.looks import Answer, sealed

_LOOK_S: Final = 0.25
_ELSEWHERE: Final = re.compile(r"[a-z]+:(?!image/)", re.IGNORECASE)
"""Not the file itself but where it lies: an address, a job, a reference."""
_FILES: Final = ("image/png", "image/jpeg", "image/webp", "application/octet-stream")


class VerifyBody(BaseModel):
    """A picture, as the file that it is."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    image: Image


class KnownView(BaseModel):
    """The released picture that this is, or looks like: `distance` of 256 bits of a perceptual hash; time since 1970.

    `job` is told where the picture came out of one of the key's own jobs, as this very file or changed since.
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
    made = APIRouter(route_class=Guarded, tags=["verify"])
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
    """Read a picture's content credentials and look for this installation's watermark. Free of charge."""
    parts = parts_of(request)
    inputs: Inputs = request.app.state.inputs
    key: Key | None = getattr(request.state, "key", None)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _FILES:
        data = inputs.checked(await request.body(), "body")
    else:
        sent = _image(await request.body())
        if key is None and _ELSEWHERE.match(sent):
            raise NotAuthenticated("without a key only the file itself is looked at; send its bytes")
        data = await inputs.read_file(key.id if key is not None else "", Given("image", sent))
    answer = await _looked_at(parts, key, data, request.is_disconnected)
    return await asyncio.to_thread(_verdict, parts, key, data, answer)


def _image(text: bytes) -> str:
    try:
        return VerifyBody.model_validate_json(text).image
    except ValidationError as error:
        raise InvalidRequest(
            'send the file itself (content-type: image/png) or {"image": IMAGE} as JSON', field="image"
        ) from error


async def _looked_at(parts: Parts, key: Key | None, data: bytes, gone: Callable[[], Awaitable[bool]]) -> Answer:
    """What a worker has found. Raises `TooManyJobs`, and `NotAvailable` where none has looked in time."""
    looks, most = parts.looks, parts.settings.keys.active_limit
    if key is not None and key.active_limit is not None:
        most = key.active_limit
    digest = await asyncio.to_thread(parts.storage.put, sealed(data))
    look_id = None
    try:
        look_id = await asyncio.to_thread(looks.submit, key.id if key is not None else None, digest, most)
        return await _answered(parts, look_id, gone)
    except UnknownJob as error:
        raise NotAvailable("nobody has looked at the picture; try again") from error
    finally:
        # whatever happened: what was sent is not kept
        await asyncio.to_thread(_forget, parts, look_id, digest)


async def _answered(parts: Parts, look_id: str, gone: Callable[[], Awaitable[bool]]) -> Answer:
    looks, loop = parts.looks, asyncio.get_running_loop()
    until = loop.time() + looks.wait_s
    with parts.changes.follow() as following:
        while (answer := await asyncio.to_thread(looks.answer, look_id)) is None:
            parts.ending.check()
            if loop.time() > until or await gone():
                raise NotAvailable(f"no worker has looked at the picture within {looks.wait_s:g} s; try again")
            await following.wait(_LOOK_S)
    return answer


def _forget(parts: Parts, look_id: str | None, digest: str) -> None:
    if look_id is not None:
        parts.looks.drop(look_id)
    parts.storage.delete(digest)


def _verdict(parts: Parts, key: Key | None, data: bytes, answer: Answer) -> Verdict:
    if answer.report is None:
        raise _why_not(answer)
    report = dict(answer.report)
    job = parts.gallery.job_of_file(key.id, hashlib.sha256(data).hexdigest()) if key is not None else None
    record = report["known"]
    if job is not None:
        report["known"] = KnownView(job=job.id, created_at=job.created_at, distance=0)
    elif record is not None:
        # not the very file, but it looks like a released one, whose line names the job by the mark that it was given
        if key is not None and record["payload"] is not None:
            job = parts.gallery.job_of_payload(key.id, record["payload"])
        told = job.id if job is not None else None
        report["known"] = KnownView(job=told, created_at=record["at"], distance=record["distance"])
    return Verdict(**report)


def _why_not(answer: Answer) -> LichtError:
    message = answer.error or "the picture could not be looked at"
    if answer.error_code == InvalidImage.code:
        return InvalidImage(message, field="image")
    return NotAvailable(message) if answer.error_code != "internal_error" else LichtError(message)
