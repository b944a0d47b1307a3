"""What a key has drawn: search, favourites, how a picture was made."""

import base64
import binascii
import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from licht.core.errors import InvalidRequest
from licht.service.api.auth import Guarded, needs
from licht.service.api.native import delete_job
from licht.service.api.parts import Parts, base_url_of, key_of, parts_of
from licht.service.gallery import Piece, Search
from licht.service.keys import Scope
from licht.service.metering import MILLI
from licht.service.queue.records import Job, Task

_PLACE: Final = re.compile(r"(\d{1,16}(?:\.\d{1,12})?) ([\w-]{1,64})", re.ASCII)


class PictureView(BaseModel):
    """A finished picture. Times in seconds, cost in credits, sizes in pixels."""

    id: str
    model: str
    weights: str
    created_at: float
    favourite: bool
    prompt: str
    seed: int
    width: int
    height: int
    steps: int
    guidance: float | None
    media_type: str
    bytes: int
    cost: float
    duration: float
    url: str
    warnings: list[str]


class MadePicture(PictureView):
    """The same with `recipe`: a body for `POST /v1/jobs` that draws the picture again."""

    recipe: dict[str, Any]


class PictureList(BaseModel):
    """A page, newest first; `next` is `before` for the following one."""

    pictures: list[PictureView]
    next: str | None


def router() -> APIRouter:
    """The routes."""
    made = APIRouter(route_class=Guarded, prefix="/v1/gallery", tags=["gallery"])
    made.add_api_route("", list_pictures, methods=["GET"], response_model=PictureList)
    made.add_api_route("/{job_id}", get_picture_made, methods=["GET"], response_model=MadePicture)
    made.add_api_route("/{job_id}", delete_picture, methods=["DELETE"], status_code=204, response_class=Response)
    made.add_api_route("/{job_id}/favourite", mark_picture, methods=["PUT"], response_model=PictureView)
    made.add_api_route("/{job_id}/favourite", unmark_picture, methods=["DELETE"], response_model=PictureView)
    return made


@needs(Scope.GENERATE)
def list_pictures(
    request: Request,
    search: Annotated[str | None, Query(max_length=200)] = None,
    favourite: Annotated[bool | None, Query()] = None,
    model: Annotated[str | None, Query(max_length=100)] = None,
    before: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> PictureList:
    """The key's pictures, a page at a time."""
    parts, base_url = parts_of(request), base_url_of(request)
    place = _place(before) if before is not None else None
    found = parts.gallery.find(key_of(request).id, Search(search, favourite, model, place, limit + 1))
    more = len(found) > limit
    shown = found[:limit]
    return PictureList(
        pictures=[_view(parts, piece, base_url) for piece in shown], next=_name(shown[-1].job) if more else None
    )


@needs(Scope.GENERATE)
def get_picture_made(request: Request, job_id: str) -> MadePicture:
    """One picture, and how it was made."""
    parts = parts_of(request)
    piece = parts.gallery.get(key_of(request).id, job_id)
    told = _view(parts, piece, base_url_of(request))
    return MadePicture(**told.model_dump(), recipe=recipe_of(piece.job))


@needs(Scope.GENERATE)
def mark_picture(request: Request, job_id: str) -> PictureView:
    """Make it a favourite."""
    return _mark(request, job_id, favourite=True)


@needs(Scope.GENERATE)
def unmark_picture(request: Request, job_id: str) -> PictureView:
    """It is no favourite any more."""
    return _mark(request, job_id, favourite=False)


@needs(Scope.GENERATE)
def delete_picture(request: Request, job_id: str) -> Response:
    """Remove the picture and its job."""
    return delete_job(request, job_id)


def _mark(request: Request, job_id: str, favourite: bool) -> PictureView:
    parts = parts_of(request)
    return _view(parts, parts.gallery.mark(key_of(request).id, job_id, favourite), base_url_of(request))


def _view(parts: Parts, piece: Piece, base_url: str) -> PictureView:
    job = piece.job
    result = job.result or {}
    return PictureView(
        id=job.id,
        model=job.route,
        weights=result["model"],
        created_at=job.created_at,
        favourite=piece.favourite,
        prompt=job.task.prompt,
        seed=result["seed"],
        width=result["width"],
        height=result["height"],
        steps=result["steps"],
        guidance=result["guidance"],
        media_type=result["media_type"],
        bytes=result["bytes"],
        cost=job.cost_milli / MILLI,
        duration=(job.finished_at or 0.0) - (job.started_at or 0.0),
        url=parts.result_link(base_url, job.id),
        warnings=result["warnings"],
    )


def recipe_of(job: Job) -> dict[str, Any]:
    """A body for `POST /v1/jobs` that draws the same picture: nothing is left to chance or to defaults."""
    task, result = job.task, job.result or {}
    recipe: dict[str, Any] = {
        "model": job.route,
        "prompt": task.prompt,
        "seed": result["seed"],
        "steps": result["steps"],
        "output_format": task.file_format.lower(),
        "safety_tolerance": task.safety_tolerance,
        "candidates": 1,
        "finish": task.finish,
        "prompt_upsampling": task.upsample,
    }
    if result["guidance"] is not None:
        recipe["guidance"] = result["guidance"]
    if task.mask is None and task.extend is None:
        recipe |= {"width": task.width, "height": task.height}
    return recipe | _pictures(task)


def _pictures(task: Task) -> dict[str, Any]:
    pictures: dict[str, Any] = {}
    if task.inputs:
        pictures["references"] = [
            {"image": f"reference:{each.digest}", "role": each.role, "strength": each.strength, "name": each.name}
            for each in task.inputs
        ]
    if task.start is not None:
        pictures |= {"start": f"reference:{task.start}", "start_strength": task.start_strength}
    if task.mask is not None:
        pictures["mask"] = f"reference:{task.mask}"
    if task.extend is not None:
        pictures["extend"] = dict(zip(("left", "top", "right", "bottom"), task.extend, strict=True))
    return pictures


def _name(job: Job) -> str:
    """A place between two pages, for URLs."""
    return base64.urlsafe_b64encode(f"{job.created_at!r} {job.id}".encode()).decode()


def _place(name: str) -> tuple[float, str]:
    try:
        found = _PLACE.fullmatch(base64.urlsafe_b64decode(name.encode()).decode())
    except (binascii.Error, UnicodeError, ValueError):
        found = None
    if found is None:
        raise InvalidRequest("before is no place in the gallery; use the `next` of a page", field="before")
    return float(found[1]), found[2]
