"""Storyboards over HTTP: a job a frame, any frame drawn again."""

import asyncio
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from licht.core import series as core
from licht.core.errors import InvalidRequest, UnknownJob
from licht.core.request import MAX_SEED
from licht.files.sheet import contact_sheet
from licht.safety.policy import reissue
from licht.safety.provenance import Ingredient, Making
from licht.service.api.accept import prepare_for, submit
from licht.service.api.auth import Guarded, needs
from licht.service.api.bodies import PictureBody, Section, drawn
from licht.service.api.draft import Draft, Given
from licht.service.api.inputs import Reader
from licht.service.api.native import JobView, view
from licht.service.api.parts import Parts, base_url_of, key_of, parts_of
from licht.service.api.prepare import Prepared
from licht.service.keys import Key, Scope
from licht.service.queue.records import State
from licht.service.series import Frame, Series

_STORY: Final = tuple(core.Story.model_fields)

FrameNumber = Annotated[int, Path(ge=1, le=core.MAX_FRAMES)]


class SeriesBody(PictureBody):
    """A story, as `licht series` reads it, and beside it the fields of a picture, which hold for all frames."""

    model: Annotated[str, Field(max_length=100)] = "flux-2-pro"
    previews: bool = False
    title: Annotated[str, Field(max_length=200)] = "Untitled"
    style: Annotated[str, Field(max_length=32_768)] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    seeds: str = "same"
    characters: dict[str, Any] = Field(default_factory=dict)
    objects: dict[str, Any] = Field(default_factory=dict)
    frames: list[dict[str, Any]]


class RedrawBody(Section):
    """Another seed, another prompt, or neither: then a seed by chance."""

    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    prompt: Annotated[str, Field(min_length=1, max_length=32_768)] | None = None


class FrameBody(Section):
    """One more frame. Without a seed it gets the one that the story has for it."""

    prompt: Annotated[str, Field(min_length=1, max_length=32_768)]
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None


class FrameView(BaseModel):
    """A frame and the job that drew it last; None once that job was deleted."""

    number: int
    prompt: str
    job: JobView | None


class SeriesView(BaseModel):
    """A storyboard. `state` is running, ready, or incomplete where a frame has no picture."""

    id: str
    title: str
    created_at: float
    state: str
    story: dict[str, Any]
    frames: list[FrameView]


class SeriesList(BaseModel):
    """The key's latest, newest first."""

    series: list[SeriesView]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A checked story, and what holds for all of its frames."""

    story: core.Story
    body: SeriesBody
    seed: int


def router() -> APIRouter:
    """The routes."""
    made = APIRouter(route_class=Guarded, prefix="/v1/series", tags=["series"])
    made.add_api_route("", create_series, methods=["POST"], status_code=202, response_model=SeriesView)
    made.add_api_route("", list_series, methods=["GET"], response_model=SeriesList)
    made.add_api_route("/{series_id}", get_series, methods=["GET"], response_model=SeriesView)
    made.add_api_route("/{series_id}", delete_series, methods=["DELETE"], status_code=204, response_class=Response)
    made.add_api_route("/{series_id}/frames", add_frame, methods=["POST"], status_code=202, response_model=SeriesView)
    made.add_api_route("/{series_id}/sheet", get_sheet, methods=["GET"], response_class=Response)
    made.add_api_route(
        "/{series_id}/frames/{number}", redraw_frame, methods=["POST"], status_code=202, response_model=SeriesView
    )
    return made


@needs(Scope.GENERATE)
async def create_series(request: Request, body: SeriesBody) -> JSONResponse:
    """Queue all frames of a story, or none. The characters' pictures are kept as references."""
    parts, key, base_url = parts_of(request), key_of(request), base_url_of(request)
    reader = Reader(request.app.state.inputs, key.id)
    story = core.Story.from_dict({name: value for name in _STORY if (value := getattr(body, name)) is not None})
    story = await _kept(parts, reader, key, story)
    asked = _Asked(story, body, story.seed if story.seed is not None else secrets.randbelow(2**32))
    numbers = range(1, len(story.frames) + 1)
    prepared = [await prepare_for(parts, reader, _draft(asked, number)) for number in numbers]
    series_id = await asyncio.to_thread(_submit_all, parts, key, (asked, prepared), base_url)
    told = await asyncio.to_thread(_view, parts, parts.series.get(key.id, series_id), base_url)
    return JSONResponse(told.model_dump(), 202, {"Location": f"{base_url}/v1/series/{series_id}"})


@needs(Scope.GENERATE)
async def redraw_frame(request: Request, series_id: str, number: FrameNumber, body: RedrawBody) -> JSONResponse:
    """Draw one frame again; the drawing before stays in the gallery."""
    parts, key, base_url = parts_of(request), key_of(request), base_url_of(request)
    series = await asyncio.to_thread(parts.series.get, key.id, series_id)
    if number > len(series.frames):
        raise UnknownJob(f"the series has {len(series.frames)} frames", field="number")
    asked = _asked(series, number, body)
    prepared = await prepare_for(parts, Reader(request.app.state.inputs, key.id), _draft(asked, number))

    def beside(connection: Connection, ids: Sequence[str]) -> None:
        frame = Frame(number, asked.story.frames[number - 1].prompt, ids[0])
        parts.series.redraw(connection, series_id, frame)

    await asyncio.to_thread(submit, parts, key, [prepared], base_url, beside)
    told = await asyncio.to_thread(_view, parts, parts.series.get(key.id, series_id), base_url)
    return JSONResponse(told.model_dump(), 202)


@needs(Scope.GENERATE)
async def add_frame(request: Request, series_id: str, body: FrameBody) -> JSONResponse:
    """Draw one more frame at the story's end, with its characters, its style and its seeds."""
    parts, key, base_url = parts_of(request), key_of(request), base_url_of(request)
    series = await asyncio.to_thread(parts.series.get, key.id, series_id)
    number = len(series.frames) + 1
    if number > core.MAX_FRAMES:
        raise InvalidRequest(f"a story has at most {core.MAX_FRAMES} frames; begin another", field="frames")
    story = core.Story.model_validate(series.story["story"])
    frame = core.Frame(prompt=body.prompt, seed=body.seed)
    story = story.model_copy(update={"frames": (*story.frames, frame)})
    story.check()
    common = SeriesBody.model_validate({**series.story["body"], "frames": []})
    asked = _Asked(story, common, series.story["seed"])
    prepared = await prepare_for(parts, Reader(request.app.state.inputs, key.id), _draft(asked, number))

    def beside(connection: Connection, ids: Sequence[str]) -> None:
        told = {**series.story, "story": story.model_dump(mode="json")}
        parts.series.append(connection, series_id, Frame(number, frame.prompt, ids[0]), told)

    await asyncio.to_thread(submit, parts, key, [prepared], base_url, beside)
    told = await asyncio.to_thread(_view, parts, parts.series.get(key.id, series_id), base_url)
    return JSONResponse(told.model_dump(), 202)


@needs(Scope.GENERATE)
def list_series(request: Request, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> SeriesList:
    """The key's storyboards."""
    parts, base_url = parts_of(request), base_url_of(request)
    return SeriesList(series=[_view(parts, each, base_url) for each in parts.series.list(key_of(request).id, limit)])


@needs(Scope.GENERATE)
def get_series(request: Request, series_id: str) -> SeriesView:
    """One storyboard."""
    parts = parts_of(request)
    return _view(parts, parts.series.get(key_of(request).id, series_id), base_url_of(request))


@needs(Scope.GENERATE)
def get_sheet(request: Request, series_id: str) -> Response:
    """The frames that are drawn on one contact sheet, a PNG that is marked and signed like a picture."""
    parts = parts_of(request)
    series = parts.series.get(key_of(request).id, series_id)
    drawn = []
    for frame in series.frames:
        job = parts.store.get(frame.job_id) if frame.job_id is not None else None
        if job is not None and job.result is not None:
            made = Ingredient(parts.storage.get(job.result["blob"]), job.result["media_type"])
            drawn.append((made, frame.prompt))
    if not drawn:
        raise UnknownJob("no frame of this series is drawn yet", field="id")
    sheet = contact_sheet([(made.file or b"", prompt) for made, prompt in drawn])
    making = Making(ingredients=tuple(made for made, _ in drawn), edits=False)
    data = reissue(sheet, parts.policy, "PNG", making).data
    return Response(data, media_type="image/png", headers={"Cache-Control": "private, no-store"})


@needs(Scope.GENERATE)
def delete_series(request: Request, series_id: str) -> Response:
    """Forget a storyboard; its pictures stay."""
    parts_of(request).series.remove(key_of(request).id, series_id)
    return Response(status_code=204)


async def _kept(parts: Parts, reader: Reader, key: Key, story: core.Story) -> core.Story:
    """`story` with its characters' pictures kept as references of the key, and named as such."""
    characters = {}
    for name, character in story.everything.items():
        images = []
        for number, image in enumerate(character.images):
            picture = await reader.read(Given(f"characters.{name}.images.{number}", image))
            digest = await asyncio.to_thread(parts.storage.put_picture, picture)
            await asyncio.to_thread(parts.uploads.add, key.id, digest, name, (picture.width, picture.height))
            images.append(f"reference:{digest}")
            reader.remember(images[-1], picture)
        characters[name] = character.model_copy(update={"images": tuple(images)})
    return story.model_copy(update={"characters": characters, "objects": {}})


def _draft(asked: _Asked, number: int) -> Draft:
    """Frame `number` (from 1) as a request. Pictures that hold for all frames come after the characters'."""
    shot = asked.story.shot(number, asked.seed)
    draft = drawn(asked.body.model, asked.body, shot.prompt, previews=asked.body.previews)
    cast = tuple(
        Given(f"frames.{number - 1}.prompt", image, character.role, character.strength)
        for image, character in shot.images
    )
    return replace(draft, seed=shot.seed, images=(*cast, *draft.images))


def _submit_all(parts: Parts, key: Key, made: tuple[_Asked, Sequence[Prepared]], base_url: str) -> str:
    """Queue the frames and write the series, in one transaction; returns its id."""
    asked, prepared = made
    story, series_id = asked.story, str(uuid.uuid4())
    told = {
        "story": story.model_dump(mode="json"),
        "seed": asked.seed,
        "body": asked.body.model_dump(mode="json", exclude_unset=True, exclude=set(_STORY)),
    }

    def beside(connection: Connection, ids: Sequence[str]) -> None:
        frames = tuple(
            Frame(number, frame.prompt, job_id)
            for number, (frame, job_id) in enumerate(zip(story.frames, ids, strict=True), start=1)
        )
        parts.series.add(connection, Series(series_id, key.id, story.title, told, 0.0, frames))

    submit(parts, key, prepared, base_url, beside)
    return series_id


def _asked(series: Series, number: int, changes: RedrawBody) -> _Asked:
    """What a kept series asks for, with one frame changed. A new drawing of the same prompt wants another seed."""
    story = core.Story.model_validate(series.story["story"])
    seed = changes.seed if changes.seed is not None else secrets.randbelow(2**32)
    frame = core.Frame(prompt=changes.prompt or series.frames[number - 1].prompt, seed=seed)
    frames = (*story.frames[: number - 1], frame, *story.frames[number:])
    story = story.model_copy(update={"frames": frames})
    story.check()
    body = SeriesBody.model_validate({**series.story["body"], "frames": []})
    return _Asked(story, body, series.story["seed"])


def _view(parts: Parts, series: Series, base_url: str) -> SeriesView:
    frames = []
    for frame in series.frames:
        job = parts.store.get(frame.job_id) if frame.job_id is not None else None
        told = view(parts, job, base_url) if job is not None else None
        frames.append(FrameView(number=frame.number, prompt=frame.prompt, job=told))
    states = {frame.job.state if frame.job is not None else "gone" for frame in frames}
    active = states & {State.QUEUED.value, State.RUNNING.value}
    state = "running" if active else "ready" if states == {State.READY.value} else "incomplete"
    return SeriesView(
        id=series.id,
        title=series.title,
        created_at=series.created_at,
        state=state,
        story=dict(series.story["story"]),
        frames=frames,
    )
