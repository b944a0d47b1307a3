"""The protocol of the hosted API: submit, poll, fetch. Shapes and spellings are BFL's."""

import asyncio
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from licht.core.errors import UnknownJob
from licht.safety.policy import convert
from licht.service import links
from licht.service.api.accept import accept
from licht.service.api.auth import Guarded, needs, open_to_all
from licht.service.api.bodies import SubmitBody, body_of, draft_of
from licht.service.api.errors import body as error_body
from licht.service.api.parts import Parts, base_url_of, key_of, parts_of
from licht.service.keys import Scope
from licht.service.metering import MILLI
from licht.service.queue.records import Job, State

UNLIMITED_CREDITS: Final = 999_999_999.0
"""What a key without a limit is told: the protocol has no word for it, and clients expect a number."""


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


def router(parts: Parts) -> APIRouter:
    """One submit route for each tier, and what all of them share."""
    made = APIRouter(route_class=Guarded)
    for name in parts.tiers:
        _add_submit(made, name)
    made.add_api_route("/v1/get_result", get_result, methods=["GET"], response_model=Polled, tags=["bfl"])
    made.add_api_route("/v1/credits", get_credits, methods=["GET"], response_model=CreditsLeft, tags=["bfl"])
    made.add_api_route(f"{links.PATH}{{job_id}}", fetch_result, methods=["GET"], response_class=Response, tags=["bfl"])
    # some look before they fetch; the server leaves the body out
    made.add_api_route(f"{links.PATH}{{job_id}}", fetch_result, methods=["HEAD"], include_in_schema=False)
    return made


def _add_submit(made: APIRouter, route: str) -> None:
    async def submit(
        request: Request, body: SubmitBody, idempotency_key: Annotated[str | None, Header()] = None
    ) -> JSONResponse:
        parts = parts_of(request)
        draft = draft_of(route, body, idempotency_key)
        response = await accept(parts, request.app.state.inputs, key_of(request), draft, base_url_of(request))
        return JSONResponse(response)

    # the framework reads the body's fields from here
    submit.__annotations__["body"] = body_of(route)
    made.add_api_route(
        f"/v1/{route}",
        needs(Scope.GENERATE)(submit),
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
    result, cost, status, preview = None, None, "Pending", None
    if job.state is State.READY and job.result is not None:
        status, cost = "Ready", job.cost_milli / MILLI
        result = ready_result(parts, job, base_url)
        details = {name: job.result[name] for name in ("model", "warnings", "prompt_upsampled", "candidates")}
        details["ranker"] = job.result.get("ranker")
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
        if job.task.previews and (row := parts.previews.get(job.id)) is not None:
            preview = {name: getattr(row, name) for name in ("step", "total", "width", "height")}
            preview["image"] = row.data_uri
        if parts.settings.protocol.extended_statuses:
            status = "Reasoning" if job.stage == "upsample" else "Generating"
    return Polled(
        id=job.id,
        status=status,
        result=result,
        progress=job.progress,
        details=details,
        preview=preview,
        cost=cost,
    )


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


def picture_response(parts: Parts, job_id: str, wanted: str | None = None) -> Response:
    """The stored file of a finished job, or the same picture as a file of the `wanted` kind: png, jpeg, webp.

    Raises `UnknownJob`, `NotAvailable`, `OutputFailed`.
    """
    job = parts.store.get(job_id)
    if job.result is None:
        raise UnknownJob("the job has no result", field="id")
    media_type: str = job.result["media_type"]
    suffix = wanted or media_type.partition("/")[2]
    data = parts.storage.get(job.result["blob"])
    if f"image/{suffix}" != media_type:
        data = convert(data, parts.policy, suffix.upper()).data
    return Response(
        data,
        media_type=f"image/{suffix}",
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
