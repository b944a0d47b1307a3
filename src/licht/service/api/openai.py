"""OpenAI's Images API over the same jobs: generations, edits, variations, models; answers wait for the picture."""

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import FormData, UploadFile

from licht.core.errors import InvalidRequest, LichtError, UnknownModel
from licht.service.api.auth import needs
from licht.service.api.bodies import MAX_NUM, PictureBody, Prompt, drawn
from licht.service.api.draft import Draft, Given, fingerprint
from licht.service.api.openai_errors import RESPONSES, OpenAIRoute, problem
from licht.service.api.parts import Parts, base_url_of, key_of, parts_of
from licht.service.api.synchronous import Call
from licht.service.keys import Scope
from licht.service.queue.previews import PreviewRow
from licht.service.queue.records import Job

DEFAULT_MODEL: Final = "flux-2-pro"
_VARIATION: Final = "Another picture like image 1."
_MOST_IMAGES: Final = 16
_MOST_FIELDS: Final = 100
_LONGEST_FIELD: Final = 256 * 1024
_SIZE: Final = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")
_LENIENT_TOLERANCE: Final = 4
_STEP_FACTORS: Final[Mapping[str, float]] = MappingProxyType({"low": 0.5, "high": 2.0, "hd": 2.0})
"""What quality means where nobody says how many steps."""


class ImageBody(PictureBody):
    """The fields of OpenAI's API, and beside them all that the other routes take; unknown ones are ignored."""

    prompt: Prompt
    model: Annotated[str, Field(max_length=100)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_NUM)] | None = 1
    size: Annotated[str, Field(max_length=20)] | None = None
    response_format: Literal["url", "b64_json"] | None = None
    background: Literal["transparent", "opaque", "auto"] | None = None
    moderation: Literal["low", "auto"] | None = None
    quality: Literal["auto", "low", "medium", "high", "hd", "standard"] | None = None
    style: Literal["vivid", "natural"] | None = None
    input_fidelity: Literal["high", "low"] | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    stream: bool | None = False
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = 0


class VariationBody(ImageBody):
    """A picture like another one needs no words."""

    prompt: Prompt = _VARIATION


class ImageData(BaseModel):
    """One picture: its file as base64, or a signed link; the prompt if another one than yours was used."""

    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None = None


class Images(BaseModel):
    """The pictures that were asked for. `size` and `output_format` are what they really have."""

    created: int
    data: list[ImageData]
    background: str
    output_format: str
    quality: str
    size: str


class Model(BaseModel):
    """A tier; `owned_by` names the weights that draw."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str


class Models(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Model]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be drawn, and how the answer is to look. `event` begins the names of streamed events."""

    draft: Draft
    body: ImageBody
    event: str


def router() -> APIRouter:
    """The routes."""
    made = APIRouter(prefix="/v1", tags=["openai"], route_class=OpenAIRoute, responses=RESPONSES)
    made.add_api_route("/models", list_models, methods=["GET"], response_model=Models)
    made.add_api_route("/models/{model}", get_model, methods=["GET"], response_model=Model)
    made.add_api_route("/images/generations", generate, methods=["POST"], response_model=Images)
    for path, endpoint, body in (("edits", edit, ImageBody), ("variations", vary, VariationBody)):
        made.add_api_route(
            f"/images/{path}", endpoint, methods=["POST"], response_model=Images, openapi_extra=_form_schema(body)
        )
    return made


def _form_schema(body: type[ImageBody]) -> dict[str, Any]:
    """The document's word on a form: what FastAPI cannot see, because `image` may come under two names."""
    file = {"type": "string", "format": "binary"}
    schema = body.model_json_schema()
    names = (
        *("model", "n", "size", "quality", "response_format", "output_format", "output_compression", "background"),
        *("moderation", "style", "input_fidelity", "stream", "partial_images", "seed", "steps"),
    )
    properties = {name: schema["properties"][name] for name in names if name in schema["properties"]}
    properties |= {"prompt": {"type": "string"}, "image": {"type": "array", "items": file}, "mask": file}
    required = ["image"] if body is VariationBody else ["image", "prompt"]
    form = {"type": "object", "properties": properties, "required": required}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


@needs(Scope.GENERATE)
async def list_models(request: Request) -> Models:
    """The tiers, by the names of the routes."""
    parts = parts_of(request)
    weights = await asyncio.to_thread(_weights, parts)
    return Models(data=[Model(id=name, owned_by=weights) for name in parts.tiers])


@needs(Scope.GENERATE)
async def get_model(request: Request, model: str) -> Model:
    """One tier."""
    parts = parts_of(request)
    return Model(id=_tier(parts, model), owned_by=await asyncio.to_thread(_weights, parts))


@needs(Scope.GENERATE)
async def generate(
    request: Request, body: ImageBody, idempotency_key: Annotated[str | None, Header()] = None
) -> JSONResponse | StreamingResponse:
    """Draw from words."""
    draft = _draft(parts_of(request), body, idempotency_key, (), None)
    return await _answer(request, _Wanted(draft, body, "image_generation"))


@needs(Scope.GENERATE)
async def edit(
    request: Request, idempotency_key: Annotated[str | None, Header()] = None
) -> JSONResponse | StreamingResponse:
    """Draw from words and pictures; with a mask, only where it is transparent."""
    async with request.form(max_files=_MOST_IMAGES + 1, max_fields=_MOST_FIELDS, max_part_size=_LONGEST_FIELD) as form:
        images, mask = await _files(form)
        body = _body(ImageBody, form)
    draft = _draft(parts_of(request), body, idempotency_key, images, mask)
    return await _answer(request, _Wanted(draft, body, "image_edit"))


@needs(Scope.GENERATE)
async def vary(
    request: Request, idempotency_key: Annotated[str | None, Header()] = None
) -> JSONResponse | StreamingResponse:
    """Draw something like a picture."""
    async with request.form(max_files=1, max_fields=_MOST_FIELDS, max_part_size=_LONGEST_FIELD) as form:
        images, _ = await _files(form)
        body = _body(VariationBody, form)
    draft = _draft(parts_of(request), body, idempotency_key, images, None)
    return await _answer(request, _Wanted(draft, body, "image_generation"))


async def _files(form: FormData) -> tuple[tuple[Given, ...], Given | None]:
    """(pictures, mask). One picture comes as `image`, several as `image[]`, and some clients do it the other way."""
    images = [
        Given("image", await value.read())
        for name, value in form.multi_items()
        if name in ("image", "image[]") and isinstance(value, UploadFile)
    ]
    if not images:
        raise InvalidRequest("image is missing; send a file as image or image[]", field="image")
    mask = form.get("mask")
    return tuple(images), Given("mask", await mask.read()) if isinstance(mask, UploadFile) else None


def _body(kind: type[ImageBody], form: FormData) -> ImageBody:
    """The text fields of a form. Forms know only text: numbers and booleans are read from it."""
    fields = {name: value for name, value in form.multi_items() if isinstance(value, str) and value != ""}
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        found = [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_url=False)]
        raise RequestValidationError(found) from error


def _draft(parts: Parts, body: ImageBody, token: str | None, images: tuple[Given, ...], mask: Given | None) -> Draft:
    if body.background == "transparent":
        raise InvalidRequest("pictures have no transparency here; leave background out", field="background")
    if body.stream and (body.n or 1) > 1:
        raise InvalidRequest("a stream shows one picture; leave n out", field="n")
    output_format = body.output_format or "png"
    if output_format == "png" and body.output_compression not in (None, 100):
        raise InvalidRequest("png is never compressed with a loss; ask for jpeg or webp", field="output_compression")
    size = _size(body.size)
    draft = drawn(
        _tier(parts, body.model),
        body,
        body.prompt,
        num=body.n or 1,
        previews=bool(body.stream and body.partial_images),
        idempotency_token=token,
        fingerprint=_fingerprint(body, images, mask) if token is not None else "",
    )
    draft = replace(
        draft,
        images=(*images, *draft.images),
        output_format=output_format,
        # 0 is the smallest file that there is
        file_quality=max(1, body.output_compression) if body.output_compression is not None else None,
        step_factor=_STEP_FACTORS.get(body.quality or "auto", 1.0),
        safety_tolerance=_LENIENT_TOLERANCE if body.moderation == "low" else draft.safety_tolerance,
    )
    if mask is not None:
        # the picture under the mask says what the size is, whatever the client's form has in it
        return replace(draft, mask=mask, mask_is_alpha=True, width=0, height=0)
    return replace(draft, width=size[0] or draft.width, height=size[1] or draft.height)


def _fingerprint(body: ImageBody, images: tuple[Given, ...], mask: Given | None) -> str:
    files = [fingerprint(given.field, {"file": str(given.value)}) for given in (*images, *((mask,) if mask else ()))]
    return fingerprint("openai", {**body.model_dump(mode="json"), "files": files})


def _tier(parts: Parts, model: str | None) -> str:
    name = model or (DEFAULT_MODEL if DEFAULT_MODEL in parts.tiers else next(iter(parts.tiers)))
    if name not in parts.tiers:
        raise UnknownModel(
            f"the model {name[:100]!r} does not exist here; use one of {', '.join(parts.tiers)}", field="model"
        )
    return name


def _size(text: str | None) -> tuple[int, int]:
    """(width, height) in pixels, 0 for automatic. Raises `InvalidRequest`."""
    if text in (None, "", "auto"):
        return 0, 0
    match = _SIZE.fullmatch(text or "")
    if match is None:
        raise InvalidRequest(f"size {text!r} is neither auto nor WIDTHxHEIGHT, such as 1024x1024", field="size")
    return int(match[1]), int(match[2])


def _weights(parts: Parts) -> str:
    """The weights that draw; the project's name until a worker has told."""
    ready = [row.model for row in parts.register.list() if row.ready_at is not None]
    return ready[0] if ready else "licht"


async def _answer(request: Request, wanted: _Wanted) -> JSONResponse | StreamingResponse:
    parts, key, base_url = parts_of(request), key_of(request), base_url_of(request)
    call = Call(parts, request.app.state.inputs, key, base_url, request.is_disconnected)
    ids = await call.submit(wanted.draft)
    if wanted.body.stream:
        events = _stream(call, ids, wanted)
        return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
    jobs = await call.ready(ids)
    data = [await asyncio.to_thread(_data, call, job, wanted) for job in jobs]
    return JSONResponse(_images(jobs[0], data, wanted.body).model_dump(exclude_none=True))


def _images(job: Job, data: list[ImageData], body: ImageBody) -> Images:
    return Images(created=int(job.finished_at or job.created_at), data=data, **_told(job, body))


def _told(job: Job, body: ImageBody) -> dict[str, str]:
    result = job.result or {}
    return {
        "background": "opaque",
        "quality": body.quality or "auto",
        "output_format": result["media_type"].partition("/")[2],
        "size": f"{result['width']}x{result['height']}",
    }


def _data(call: Call, job: Job, wanted: _Wanted) -> ImageData:
    result = job.result or {}
    revised = result["prompt"] if result["prompt"] != job.task.prompt else None
    if wanted.body.response_format == "url":
        return ImageData(url=call.parts.result_link(call.base_url, job.id), revised_prompt=revised)
    file = base64.b64encode(call.parts.storage.get(result["blob"])).decode()
    return ImageData(b64_json=file, revised_prompt=revised)


async def _stream(call: Call, ids: list[str], wanted: _Wanted) -> AsyncIterator[str]:
    """Partial pictures as they come, spread over the steps, then the picture. A failure is an event too."""
    try:
        shown = 0
        async for row in call.previews(ids[0]):
            most = wanted.body.partial_images or 0
            if shown < most and row.step * (most + 1) >= (shown + 1) * row.total:
                partial = {**_partial(row, shown), "quality": wanted.body.quality or "auto"}
                yield _event(f"{wanted.event}.partial_image", partial)
                shown += 1
        jobs = await call.ready(ids)
        data = await asyncio.to_thread(_data, call, jobs[0], _as_file(wanted))
        told = {"created_at": int(jobs[0].finished_at or 0), **_told(jobs[0], wanted.body), "usage": _NO_TOKENS}
        yield _event(f"{wanted.event}.completed", {"b64_json": data.b64_json, **told})
    except LichtError as error:
        _, said = problem(error)
        yield f"data: {json.dumps({'error': said.model_dump()})}\n\n"


_NO_TOKENS: Final[Mapping[str, Any]] = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}
"""Their client expects the field; nothing is billed by tokens here."""


def _as_file(wanted: _Wanted) -> _Wanted:
    """Events carry the file itself, whatever was asked for."""
    return replace(wanted, body=wanted.body.model_copy(update={"response_format": "b64_json"}))


def _partial(row: PreviewRow, number: int) -> dict[str, Any]:
    return {
        "b64_json": base64.b64encode(row.data).decode(),
        "partial_image_index": number,
        "created_at": int(time.time()),
        "background": "opaque",
        "output_format": row.media_type.partition("/")[2],
        "size": f"{row.width}x{row.height}",
    }


def _event(name: str, data: Mapping[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n"
