"""Licht's own routes over the same jobs: list, follow, cancel, delete."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel

from licht.core.errors import UnknownJob
from licht.service.api.accept import accept
from licht.service.api.auth import Guarded, needs
from licht.service.api.bfl import picture_response
from licht.service.api.bodies import JobBody, draft_of
from licht.service.api.ending import Stopping
from licht.service.api.parts import Parts, base_url_of, key_of, parts_of
from licht.service.keys import Scope
from licht.service.metering import MILLI
from licht.service.queue.previews import PreviewRow
from licht.service.queue.records import Job, State

_LOOK_S: Final = 0.25
_KEEP_ALIVE_S: Final = 10.0
_STOPPING: Final = "the service is stopping; the job stays, follow it again in a moment"


class JobView(BaseModel):
    """A job. Times in seconds since 1970, cost in credits, sizes in pixels."""

    id: str
    model: str
    state: str
    stage: str
    progress: float
    queue_position: int | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    attempt: int
    cost: float
    width: int
    height: int
    seed: int
    prompt: str
    batch: list[str]
    result: dict[str, Any] | None
    error: dict[str, str] | None


class PreviewView(BaseModel):
    """The picture after `step` of `total` steps, as a data URI; sizes in pixels."""

    step: int
    total: int
    width: int
    height: int
    image: str


class JobList(BaseModel):
    """Jobs, newest first."""

    jobs: list[JobView]


def router() -> APIRouter:
    """The native routes."""
    made = APIRouter(route_class=Guarded, prefix="/v1/jobs", tags=["jobs"])
    made.add_api_route("", create_job, methods=["POST"], status_code=202, response_model=JobView)
    made.add_api_route("", list_jobs, methods=["GET"], response_model=JobList)
    made.add_api_route("/{job_id}", get_job, methods=["GET"], response_model=JobView)
    made.add_api_route("/{job_id}", delete_job, methods=["DELETE"], status_code=204, response_class=Response)
    made.add_api_route("/{job_id}/cancel", cancel_job, methods=["POST"], response_model=JobView)
    made.add_api_route("/{job_id}/picture", get_picture, methods=["GET"], response_class=Response)
    made.add_api_route("/{job_id}/events", follow_job, methods=["GET"], response_class=StreamingResponse)
    return made


def view(parts: Parts, job: Job, base_url: str) -> JobView:
    """A job as its owner sees it."""
    result = None
    if job.result is not None:
        result = {name: value for name, value in job.result.items() if name != "blob"}
        result["url"] = parts.result_link(base_url, job.id)
    failed = job.state in (State.FAILED, State.MODERATED)
    return JobView(
        id=job.id,
        model=job.route,
        state=job.state.value,
        stage=job.stage,
        progress=job.progress,
        queue_position=parts.store.position(job),
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        attempt=job.attempt,
        cost=job.cost_milli / MILLI if job.state in (State.QUEUED, State.RUNNING, State.READY) else 0.0,
        width=job.task.width,
        height=job.task.height,
        seed=job.task.seed,
        prompt=job.task.prompt,
        batch=list(job.task.batch) or [job.id],
        result=result,
        error={"code": job.error_code or "error", "message": job.error or ""} if failed else None,
    )


@needs(Scope.GENERATE)
async def create_job(
    request: Request, body: JobBody, idempotency_key: Annotated[str | None, Header()] = None
) -> JSONResponse:
    """Queue a job, or `num` of them with consecutive seeds; the answer is the first, its `batch` names all."""
    parts, base_url, key = parts_of(request), base_url_of(request), key_of(request)
    draft = draft_of(body.model, body, idempotency_key)
    response = await accept(parts, request.app.state.inputs, key, draft, base_url)
    job = await asyncio.to_thread(parts.store.get, response["id"], key.id)
    told = await asyncio.to_thread(view, parts, job, base_url)
    return JSONResponse(told.model_dump(), 202, {"Location": f"{base_url}/v1/jobs/{job.id}"})


@needs(Scope.GENERATE)
def list_jobs(
    request: Request,
    state: Annotated[State | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> JobList:
    """The key's latest jobs."""
    parts, base_url = parts_of(request), base_url_of(request)
    jobs = parts.store.recent(key_of(request).id, tuple(State) if state is None else (state,), limit)
    return JobList(jobs=[view(parts, job, base_url) for job in jobs])


@needs(Scope.GENERATE)
def get_job(request: Request, job_id: str) -> JobView:
    """One job of the key."""
    parts = parts_of(request)
    return view(parts, parts.store.get(job_id, key_of(request).id), base_url_of(request))


@needs(Scope.GENERATE)
def cancel_job(request: Request, job_id: str) -> JobView:
    """Stop a job: at once if it waits, within one step if it runs."""
    parts = parts_of(request)
    return view(parts, parts.store.cancel(job_id, key_of(request).id), base_url_of(request))


@needs(Scope.GENERATE)
def delete_job(request: Request, job_id: str) -> Response:
    """Remove a job that has ended, with its pictures."""
    parts = parts_of(request)
    for digest in parts.store.delete(job_id, key_of(request).id):
        parts.storage.delete(digest)
    return Response(status_code=204)


@needs(Scope.GENERATE)
def get_picture(
    request: Request, job_id: str, kind: Annotated[Literal["png", "jpeg", "webp"] | None, Query(alias="format")] = None
) -> Response:
    """The picture of a finished job, with a key instead of a link; in another `format` signed anew, by the same key."""
    parts = parts_of(request)
    parts.store.get(job_id, key_of(request).id)
    return picture_response(parts, job_id, kind)


@needs(Scope.GENERATE)
async def follow_job(request: Request, job_id: str) -> StreamingResponse:
    """Server-sent events: `progress` and `preview` when something changed, then `end`, or `error` where the service ends first."""
    parts, key = parts_of(request), key_of(request)
    await asyncio.to_thread(parts.store.get, job_id, key.id)
    events = _events(parts, (job_id, key.id), base_url_of(request))
    return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _events(parts: Parts, job: tuple[str, str], base_url: str) -> AsyncIterator[str]:
    shown, quiet_s, step = "", 0.0, 0
    with parts.changes.follow() as following:
        while True:
            try:
                found, told, preview = await asyncio.to_thread(_looked_up, parts, job, base_url, step)
            except UnknownJob:
                yield _event("end", "{}")
                return
            if found.state.final:
                yield _event("end", told.model_dump_json())
                return
            if parts.ending.stops(found.state):
                yield _event("error", json.dumps({"code": Stopping.code, "message": _STOPPING}))
                return
            # the link is new each time, which is no news
            seen = told.model_dump_json(exclude={"result"})
            if seen != shown:
                shown, quiet_s = seen, 0.0
                yield _event("progress", seen)
            if preview is not None:
                step, quiet_s = preview.step, 0.0
                yield _event("preview", preview_view(preview).model_dump_json())
            if quiet_s >= _KEEP_ALIVE_S:
                quiet_s = 0.0
                yield ": still here\n\n"
            begun = time.monotonic()
            await following.wait(_LOOK_S)
            quiet_s += time.monotonic() - begun


def _looked_up(parts: Parts, job: tuple[str, str], base_url: str, step: int) -> tuple[Job, JobView, PreviewRow | None]:
    """The job, and its preview unless it is still the one of `step`; previews come between two notes of progress."""
    found = parts.store.get(*job)
    shows = found.task.previews and not found.state.final
    preview = parts.previews.get(found.id, step) if shows else None
    return found, view(parts, found, base_url), preview


def preview_view(preview: PreviewRow) -> PreviewView:
    """A preview as events tell it."""
    encoded = base64.b64encode(preview.data).decode()
    return PreviewView(
        step=preview.step,
        total=preview.total,
        width=preview.width,
        height=preview.height,
        image=f"data:{preview.media_type};base64,{encoded}",
    )


def _event(name: str, data: str) -> str:
    return f"event: {name}\ndata: {data}\n\n"
