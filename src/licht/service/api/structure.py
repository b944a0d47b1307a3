"""Prose becomes a structured prompt, through the language model that the settings name for writing prompts out."""

import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from licht.core.errors import EndpointFailed, InvalidPrompt, NotAvailable
from licht.core.prompt import StructuredPrompt
from licht.service.api.auth import Guarded, needs
from licht.service.api.parts import parts_of
from licht.service.keys import Scope
from licht.service.settings import UpsamplingSection

_TRIES: Final = 2
_OBJECT: Final = re.compile(r"\{.*\}", re.DOTALL)
_QUOTED: Final = re.compile(r"[\"“„]([^\"“”„]+)[\"”“]")
_SYSTEM: Final = """You turn descriptions of pictures into one JSON object, and answer with that object alone.
Its fields, all of them optional: "scene" (text), "subjects" (list of objects with "type", "description", "pose",
"position", "action", and "colors", a list), "style", "lighting", "mood", "background", "composition" (texts),
"color_palette" (list of colours written #rrggbb), "camera" (object with "angle", "distance", "focus", "lens-mm",
"f-number", "ISO"), "effects" (list of texts), "texts" (list of objects with "content", "font", "place", "color").
Use only what the description says, in its own words; leave a field out rather than invent. What stands in quotes is
written in the picture: keep it letter for letter as the "content" of an entry of "texts"."""


class ProseBody(BaseModel):
    """A prompt in prose."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Annotated[str, Field(min_length=1, max_length=32_768)]


class StructuredView(BaseModel):
    """The same as a structured prompt."""

    prompt: dict[str, Any]


def router() -> APIRouter:
    """The route."""
    made = APIRouter(route_class=Guarded, prefix="/v1/prompts", tags=["studio"])
    made.add_api_route("/structured", structured, methods=["POST"], response_model=StructuredView)
    return made


@needs(Scope.GENERATE)
def structured(request: Request, body: ProseBody) -> StructuredView:
    """Ask the language model. Raises `NotAvailable` where none is configured, or where it gives nothing usable."""
    return StructuredView(prompt=structure(body.prompt, parts_of(request).settings.upsampling))


def structure(prompt: str, settings: UpsamplingSection) -> dict[str, Any]:
    """The structured prompt that says what `prompt` says. Quoted words survive, or the answer does not count."""
    if settings.url is None:
        raise NotAvailable("no language model is configured here; set upsampling.url, or fill in the form by hand")
    from licht.upsample.chat import ChatUpsampler

    key = settings.key.get_secret_value() if settings.key is not None else None
    upsampler = ChatUpsampler(settings.url, settings.model, key, settings.timeout_s)
    reason = ""
    for _ in range(_TRIES):
        try:
            return _checked(upsampler.answer(_SYSTEM, prompt, ()), prompt)
        except InvalidPrompt as error:
            reason = error.message
        except EndpointFailed as error:
            # its own words name an address that is the operator's business
            raise NotAvailable("the language model does not answer; try again, or fill in the form by hand") from error
    raise NotAvailable(f"the language model gave no usable structured prompt ({reason}); fill in the form by hand")


def _checked(answer: str, prompt: str) -> dict[str, Any]:
    found = _OBJECT.search(answer)
    if found is None:
        raise InvalidPrompt("the answer holds no JSON object")
    made = StructuredPrompt.from_json(found[0])
    written = [text.content for text in made.texts]
    for quoted in _QUOTED.findall(prompt):
        if quoted not in written:
            raise InvalidPrompt(f"the answer lost the quoted words {quoted[:50]!r}")
    return made.model_dump(by_alias=True, mode="json", exclude_defaults=True)
