"""Pictures that a key keeps to use them again: content-addressed, so the same one is kept once."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from licht.safety.images import thumbnail
from licht.service.api.auth import Guarded, needs
from licht.service.api.bodies import Image
from licht.service.api.draft import Given
from licht.service.api.inputs import Inputs
from licht.service.api.parts import key_of, parts_of
from licht.service.keys import Scope
from licht.service.uploads import Upload

Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


class ReferenceUpload(BaseModel):
    """A picture to keep."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    image: Image
    name: Annotated[str, Field(min_length=1, max_length=100)] = "reference"


class ReferenceView(BaseModel):
    """A kept picture. `id` is a hash of its pixels; sizes in pixels, times in seconds since 1970."""

    id: str
    name: str
    width: int
    height: int
    created_at: float


class ReferenceList(BaseModel):
    """All of a key's, newest first."""

    references: list[ReferenceView]


def router() -> APIRouter:
    """The routes."""
    made = APIRouter(route_class=Guarded, prefix="/v1/references", tags=["references"])
    responses: dict[int | str, dict[str, object]] = {
        200: {"model": ReferenceView, "description": "The key has these pixels already"}
    }
    made.add_api_route(
        "", add_reference, methods=["POST"], status_code=201, response_model=ReferenceView, responses=responses
    )
    made.add_api_route("", list_references, methods=["GET"], response_model=ReferenceList)
    made.add_api_route("/{reference_id}", get_reference, methods=["GET"], response_model=ReferenceView)
    made.add_api_route("/{reference_id}/picture", show_reference, methods=["GET"], response_class=Response)
    made.add_api_route(
        "/{reference_id}", delete_reference, methods=["DELETE"], status_code=204, response_class=Response
    )
    return made


@needs(Scope.GENERATE)
async def add_reference(request: Request, body: ReferenceUpload) -> JSONResponse:
    """Keep a picture."""
    parts, key = parts_of(request), key_of(request)
    inputs: Inputs = request.app.state.inputs
    picture = await inputs.read(key.id, Given("image", body.image))
    digest = await asyncio.to_thread(parts.storage.put_picture, picture)
    size = (picture.width, picture.height)
    kept, new = await asyncio.to_thread(parts.uploads.add, key.id, digest, body.name, size)
    return JSONResponse(_view(kept).model_dump(), 201 if new else 200)


@needs(Scope.GENERATE)
def list_references(request: Request) -> ReferenceList:
    """All that the key keeps."""
    return ReferenceList(references=[_view(kept) for kept in parts_of(request).uploads.list(key_of(request).id)])


@needs(Scope.GENERATE)
def get_reference(request: Request, reference_id: Digest) -> ReferenceView:
    """One that the key keeps."""
    return _view(parts_of(request).uploads.get(key_of(request).id, reference_id))


@needs(Scope.GENERATE)
def show_reference(request: Request, reference_id: Digest) -> Response:
    """What it looks like: a small PNG of the caller's own picture."""
    parts = parts_of(request)
    parts.uploads.get(key_of(request).id, reference_id)
    return Response(
        thumbnail(parts.storage.get_picture(reference_id)),
        media_type="image/png",
        headers={"Cache-Control": "private, max-age=3600"},
    )


@needs(Scope.GENERATE)
def delete_reference(request: Request, reference_id: Digest) -> Response:
    """Keep it no longer."""
    parts = parts_of(request)
    if parts.uploads.remove(key_of(request).id, reference_id):
        parts.storage.delete(reference_id)
    return Response(status_code=204)


def _view(kept: Upload) -> ReferenceView:
    return ReferenceView(
        id=kept.digest, name=kept.name, width=kept.width, height=kept.height, created_at=kept.created_at
    )
