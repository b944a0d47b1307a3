"""The protocol of the hosted API: submit, poll, fetch. Shapes and spellings are BFL's."""

import asyncio
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from licht.core.errors import InvalidRequest, UnknownJob
from licht.core.request import MAX_STEPS
from licht.safety.policy import HIGHEST_TOLERANCE
from licht.service import links
from licht.service.api.accept import Draft, accept, fingerprint
from licht.service.api.auth import needs, open_to_all
from licht.service.api.errors import body as error_body
from licht.service.api.parts import Parts, base_url_of, key_of, parts_of
from licht.service.keys import Scope
from licht.service.metering import MILLI
from licht.service.queue.records import Job, State

UNLIMITED_CREDITS: Final = 999_999_999.0
"""What a key without a limit is told: the protocol has no word for it, and clients expect a number."""
_MAX_INPUTS: Final = 10
_MAX_PROMPT: Final = 32_768 * 4
_STRICTER: Final = "flux-2-"

Image = Annotated[str, Field(description="base64, a data URI, or an http(s) URL")]
Side = Annotated[int, Field(ge=0, le=100_000)]


class SubmitBody(BaseModel):
    """All fields of all routes. Unknown ones are ignored, as the hosted API does."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    prompt: Annotated[str, Field(max_length=_MAX_PROMPT)]
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
    mask: str | None = None
    seed: Annotated[int, Field(ge=0, le=2**64 - 1)] | None = None
    width: Side | None = 0
    height: Side | None = 0
    aspect_ratio: Annotated[str, Field(max_length=20)] | None = None
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    guidance: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] | None = None
    safety_tolerance: Annotated[int, Field(ge=0, le=6)] = 2
    output_format: Literal["jpeg", "png", "webp"] | None = None
    prompt_upsampling: bool | None = None
    disable_pup: bool = False
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

    def images(self) -> tuple[tuple[str, str], ...]:
        """(field, value) of every picture that is there, in order; empty text is none."""
        fields = ["input_image", *(f"input_image_{number}" for number in range(2, _MAX_INPUTS + 1)), "image_prompt"]
        return tuple((name, value) for name in fields if (value := getattr(self, name)))


class Submitted(BaseModel):
    """What a submit answers. `status` and `webhook_url` come with a webhook only. MP are millions of pixels."""

    id: str
    polling_url: str
    cost: float
    input_mp: float
    output_mp: float
    status: str | None = None
    webhook_url: str | None = None


class Polled(BaseModel):
    """What polling answers."""

    id: str
    status: str
    result: dict[str, Any] | None
    progress: float
    details: dict[str, Any]
    preview: dict[str, Any] | None = None
    cost: float | None = None


class CreditsLeft(BaseModel):
    """What is left to a key."""

    credits: float


def draft_of(route: str, body: SubmitBody, token: str | None) -> Draft:
    """A body as any protocol's request. Raises `InvalidRequest` for what this route does not take."""
    if body.mask:
        raise InvalidRequest("masks are not supported by this route; describe what to change instead", field="mask")
    highest = HIGHEST_TOLERANCE if route.startswith(_STRICTER) else HIGHEST_TOLERANCE + 1
    if body.safety_tolerance > highest:
        raise InvalidRequest(f"safety_tolerance goes from 0 to {highest} here", field="safety_tolerance")
    return Draft(
        route=route,
        prompt=body.prompt,
        images=body.images(),
        width=body.width or 0,
        height=body.height or 0,
        aspect_ratio=body.aspect_ratio,
        seed=body.seed,
        steps=body.steps,
        guidance=body.guidance,
        output_format=body.output_format,
        # the older routes have one level more, which means the same here
        safety_tolerance=min(body.safety_tolerance, HIGHEST_TOLERANCE),
        webhook_url=body.webhook_url,
        webhook_secret=body.webhook_secret,
        idempotency_token=token,
        fingerprint=fingerprint(route, body.model_dump(mode="json")) if token is not None else "",
    )


def router(parts: Parts) -> APIRouter:
    """One submit route for each tier, and what all of them share."""
    made = APIRouter()
    for name in parts.tiers:
        _add_submit(made, name)
    made.add_api_route("/v1/get_result", get_result, methods=["GET"], response_model=Polled, tags=["bfl"])
    made.add_api_route("/v1/credits", get_credits, methods=["GET"], response_model=CreditsLeft, tags=["bfl"])
    made.add_api_route(f"{links.PATH}{{job_id}}", fetch_result, methods=["GET"], response_class=Response, tags=["bfl"])
    return made


def _add_submit(made: APIRouter, route: str) -> None:
    @needs(Scope.GENERATE)
    async def submit(
        request: Request, body: SubmitBody, idempotency_key: Annotated[str | None, Header()] = None
    ) -> JSONResponse:
        parts = parts_of(request)
        draft = draft_of(route, body, idempotency_key)
        response = await accept(parts, request.app.state.inputs, key_of(request), draft, base_url_of(request))
        return JSONResponse(response)

    made.add_api_route(
        f"/v1/{route}",
        submit,
        methods=["POST"],
        name=f"submit {route}",
        operation_id=f"submit_{route.replace('-', '_').replace('.', '_')}",
        response_model=Submitted,
        tags=["bfl"],
    )


@open_to_all
def get_result(request: Request, id: Annotated[str, Query(max_length=200)]) -> JSONResponse:  # noqa: A002 - BFL's name
    """Where a job stands. The id is unguessable, and all that it takes."""
    parts = parts_of(request)
    try:
        job = parts.store.get(id)
    except UnknownJob as error:
        told = Polled(id=id, status="Task not found", result=None, progress=0.0, details={})
        return JSONResponse({**_plain(told), **error_body(error.message, error.message, error.code)}, 404)
    return JSONResponse(_plain(polled(parts, job, base_url_of(request))))


def polled(parts: Parts, job: Job, base_url: str) -> Polled:
    """A job in BFL's words."""
    details: dict[str, Any] = {}
    result, cost, status = None, None, "Pending"
    if job.state is State.READY and job.result is not None:
        status, cost = "Ready", job.cost_milli / MILLI
        result = ready_result(parts, job, base_url)
        details = {name: job.result[name] for name in ("model", "warnings", "prompt_upsampled")}
    elif job.state is State.MODERATED:
        status = "Content Moderated" if job.error_code == "content_moderated" else "Request Moderated"
        details = {"Moderation Reasons": [job.error or "refused by the policy"]}
    elif job.state is State.FAILED:
        status, details = "Error", {"error": job.error or "the picture could not be drawn", "code": job.error_code}
    elif job.state is State.CANCELLED:
        status, details = "Error", {"error": "the job was cancelled", "code": "cancelled"}
    elif job.state is State.QUEUED:
        details = {"queue_position": parts.store.position(job) or 0}
    else:
        details = {"stage": job.stage}
        if parts.settings.protocol.extended_statuses:
            status = "Generating"
    return Polled(id=job.id, status=status, result=result, progress=job.progress, details=details, cost=cost)


def ready_result(parts: Parts, job: Job, base_url: str) -> dict[str, Any]:
    """The `result` of a finished job. Times in seconds since 1970."""
    if job.result is None or job.started_at is None or job.finished_at is None:
        raise UnknownJob("the job has no result", field="id")
    return {
        "sample": parts.result_link(base_url, job.id),
        "prompt": job.task.prompt,
        "seed": job.result["seed"],
        "start_time": job.started_at,
        "end_time": job.finished_at,
        "duration": job.finished_at - job.started_at,
        "width": job.result["width"],
        "height": job.result["height"],
    }


@needs(Scope.GENERATE)
def get_credits(request: Request) -> CreditsLeft:
    """What is left to the key."""
    key = key_of(request)
    return CreditsLeft(credits=UNLIMITED_CREDITS if key.credits_milli is None else key.credits_milli / MILLI)


@open_to_all
async def fetch_result(
    request: Request,
    job_id: str,
    expires: Annotated[int, Query(ge=0, le=2**53)],
    signature: Annotated[str, Query(max_length=100)],
) -> Response:
    """The picture behind a signed link."""
    parts = parts_of(request)
    links.check(parts.link_secret, job_id, expires, signature, parts.clock())
    return await asyncio.to_thread(picture_response, parts, job_id)


def picture_response(parts: Parts, job_id: str) -> Response:
    """The stored file of a finished job. Raises `UnknownJob`, `NotAvailable`."""
    job = parts.store.get(job_id)
    if job.result is None:
        raise UnknownJob("the job has no result", field="id")
    media_type: str = job.result["media_type"]
    suffix = media_type.partition("/")[2]
    return Response(
        parts.storage.get(job.result["blob"]),
        media_type=media_type,
        headers={
            "Content-Disposition": f'attachment; filename="{job.id}.{suffix}"',
            "Cache-Control": "private, max-age=600",
        },
    )


def _plain(told: Polled) -> dict[str, Any]:
    """Without `cost` where there is none: numbers are never null in this protocol."""
    plain = told.model_dump()
    if told.cost is None:
        del plain["cost"]
    return plain
