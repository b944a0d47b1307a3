"""Routes of the hosted API that are not served here. Clients that know them hear so, in the shape that they read."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from licht.core.errors import NotServed, UnknownFinetune
from licht.service.api.auth import Guarded, needs
from licht.service.api.parts import parts_of
from licht.service.keys import Scope

_INSTEAD: Final = {
    "outpainting-v1": "/v1/flux-pro-1.0-expand makes a picture larger on any side",
    "erase-v1": "/v1/flux-pro-1.0-fill with a mask draws anew what is white in it",
}
_ADAPTERS: Final = "adapters are not kept here"


class FinetuneBody(BaseModel):
    """A request for pictures of an adapter; the rest of it does not matter, since there are none."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    finetune_id: Annotated[str, Field(min_length=1, max_length=200)]


class FinetunesView(BaseModel):
    """All adapters of a key."""

    finetunes: list[str]


def router() -> APIRouter:
    """The routes. They come after all others: what a settings file calls alike is served."""
    made = APIRouter(route_class=Guarded, prefix="/v1", include_in_schema=False)
    made.add_api_route("/my_finetunes", my_finetunes, methods=["GET"], response_model=FinetunesView)
    made.add_api_route("/finetune_details", finetune_details, methods=["GET"])
    made.add_api_route("/delete_finetune", submit_finetuned, methods=["POST"])
    made.add_api_route("/finetune", train, methods=["POST"])
    made.add_api_route("/flux-tools/{name}", tool, methods=["POST"])
    made.add_api_route("/flux-{name}-finetuned", submit_finetuned, methods=["POST"])
    made.add_api_route("/flux-{name}", tier, methods=["POST"])
    return made


@needs(Scope.GENERATE)
def my_finetunes() -> FinetunesView:
    """None."""
    return FinetunesView(finetunes=[])


@needs(Scope.GENERATE)
def finetune_details(finetune_id: Annotated[str, Query(max_length=200)]) -> None:
    """There is none."""
    del finetune_id
    raise UnknownFinetune("Finetune not found or access denied")


@needs(Scope.GENERATE)
def submit_finetuned(body: FinetuneBody) -> None:
    """There is none to draw with, or to delete."""
    del body
    raise UnknownFinetune("Finetune not found or access denied")


@needs(Scope.GENERATE)
def train() -> None:
    """The hosted API has given it up too."""
    raise NotServed(f"models are not trained over HTTP, and {_ADAPTERS}; use `licht train`")


@needs(Scope.GENERATE)
def tool(name: str) -> None:
    """A model with one purpose."""
    instead = _INSTEAD.get(name, "an edit with /v1/flux-2-pro and input_image may do")
    raise NotServed(f"flux-tools/{name[:50]} is not served here; {instead}")


@needs(Scope.GENERATE)
def tier(request: Request, name: str) -> None:
    """A route that no tier has."""
    tiers = ", ".join(parts_of(request).tiers)
    raise NotServed(f"flux-{name[:50]} is not served here; use one of {tiers}")
