"""The tools that assistants get over MCP: thin words around the native routes, on stdio and over HTTP alike."""

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import httpx
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ContentBlock, ImageContent, TextContent, ToolAnnotations
from pydantic import Field

from licht import __version__

USUAL_WAIT_S: Final = 50.0
"""Assistants give up on a tool after a minute."""
_LONGEST_WAIT_S: Final = 600.0
_LOOK_S: Final = 0.1
_LONGEST_FILE: Final = 20 * 2**20
_ID: Final = re.compile(r"[\w-]{1,64}", re.ASCII)
_FINAL: Final = ("ready", "failed", "moderated", "cancelled")
_INSTRUCTIONS: Final = (
    "Draws and edits pictures. Say what should be there, not what should not. In an edit the pictures are called "
    "image 1, image 2. A picture that takes longer than wait_s seconds is fetched with get_result."
)

Connect: TypeAlias = Callable[["Context[Any, Any]"], httpx.AsyncClient]
"""Opens a client of the service's own API, with the key of whoever calls."""

Stops: TypeAlias = Callable[[str], bool]
"""Whether waiting for a job in this state has no point, because the service is about to end."""

_Prompt = Annotated[str, Field(description="What the picture shows, in plain words or as a structured JSON prompt.")]
_Model = Annotated[str, Field(description="A tier, see list_models.")]
_Side = Annotated[int, Field(ge=0, le=100_000, description="Pixels; 0 is automatic.")]
_Ratio = Annotated[str | None, Field(description="Width to height, such as 16:9, where no pixels are given.")]
_Seed = Annotated[int | None, Field(ge=0, description="The same seed draws the same picture.")]
_Wait = Annotated[float, Field(ge=0, le=_LONGEST_WAIT_S, description="How many seconds to wait for the picture.")]
_Images = Annotated[
    list[str],
    Field(min_length=1, max_length=10, description="Pictures: job:ID of an earlier one, base64, a data URI or a URL."),
]
_Mask = Annotated[
    str | None, Field(description="A picture of the size of image 1; only where it is white, image 1 changes.")
]


def build(connect: Connect, files: bool = False, stops: Stops = lambda _state: False) -> MCPServer[Any]:
    """The server. `connect` reaches the service; with `files`, pictures may be paths on this machine."""
    server: MCPServer[Any] = MCPServer(
        "licht", title="Licht", instructions=_INSTRUCTIONS, version=__version__, log_level="WARNING"
    )
    tools = _Tools(connect, files, stops)
    changes_nothing = ToolAnnotations(read_only_hint=True)
    server.add_tool(tools.generate_image, structured_output=False)
    server.add_tool(tools.edit_image, structured_output=False)
    server.add_tool(tools.list_models, structured_output=False, annotations=changes_nothing)
    server.add_tool(tools.get_result, structured_output=False, annotations=changes_nothing)
    return server


class _Tools:
    """The tools; their words are what the assistant reads."""

    def __init__(self, connect: Connect, files: bool, stops: Stops) -> None:
        self._connect = connect
        self._files = files
        self._stops = stops

    async def generate_image(
        self,
        ctx: Context[Any, Any],
        prompt: _Prompt,
        model: _Model = "flux-2-pro",
        width: _Side = 0,
        height: _Side = 0,
        aspect_ratio: _Ratio = None,
        seed: _Seed = None,
        wait_s: _Wait = USUAL_WAIT_S,
    ) -> list[ContentBlock]:
        """Draw a picture from words. Answers with the picture and its job's id."""
        body = _body(prompt, model, (width, height, aspect_ratio), seed)
        return await self._draw(ctx, body, wait_s)

    async def edit_image(
        self,
        ctx: Context[Any, Any],
        prompt: _Prompt,
        images: _Images,
        mask: _Mask = None,
        model: _Model = "flux-2-pro",
        width: _Side = 0,
        height: _Side = 0,
        aspect_ratio: _Ratio = None,
        seed: _Seed = None,
        wait_s: _Wait = USUAL_WAIT_S,
    ) -> list[ContentBlock]:
        """Draw from words and pictures: change image 1, or combine several. Say what changes and what stays."""
        body = _body(prompt, model, (width, height, aspect_ratio), seed)
        body["references"] = [{"image": await self._picture(image)} for image in images]
        if mask is not None:
            body["mask"] = await self._picture(mask)
        return await self._draw(ctx, body, wait_s)

    async def list_models(self, ctx: Context[Any, Any]) -> str:
        """The tiers that can be drawn with, one a line."""
        async with self._connect(ctx) as client:
            found = await _told(client.get("/v1/models"))
        return "\n".join(f"{each['id']} (drawn by {each['owned_by']})" for each in found["data"])

    async def get_result(
        self,
        ctx: Context[Any, Any],
        id: str,  # noqa: A002 - what assistants expect
        wait_s: _Wait = USUAL_WAIT_S,
    ) -> list[ContentBlock]:
        """The picture of a job, by the id that generate_image or edit_image gave."""
        async with self._connect(ctx) as client:
            return await self._result(ctx, client, id, wait_s)

    async def _draw(self, ctx: Context[Any, Any], body: Mapping[str, Any], wait_s: float) -> list[ContentBlock]:
        async with self._connect(ctx) as client:
            job = await _told(client.post("/v1/jobs", json=body))
            return await self._result(ctx, client, job["id"], wait_s)

    async def _result(
        self, ctx: Context[Any, Any], client: httpx.AsyncClient, job_id: str, wait_s: float
    ) -> list[ContentBlock]:
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        if _ID.fullmatch(job_id) is None:
            raise ToolError("there is no such job; use the id that generate_image gave")
        while (job := await _told(client.get(f"/v1/jobs/{job_id}")))["state"] not in _FINAL:
            if self._stops(job["state"]):
                raise ToolError(f"the service is stopping; ask get_result for the picture in a while: id {job_id}")
            if loop.time() >= until:
                text = f"The picture is {job['state']} ({job['progress']:.0%}). Ask get_result for it: id {job_id}"
                return [TextContent(type="text", text=text)]
            await ctx.report_progress(job["progress"], 1.0, job["stage"])
            await asyncio.sleep(_LOOK_S)
        return await _shown(client, job)

    async def _picture(self, value: str) -> str:
        """A file of this machine as base64, where that is allowed; everything else as it is."""
        if not self._files or value.startswith(("job:", "reference:", "data:", "http://", "https://")):
            return value
        return await asyncio.to_thread(_local, value)


def _local(value: str) -> str:
    try:
        path = Path(value).expanduser()
        if path.stat().st_size > _LONGEST_FILE:
            raise ToolError(f"{value} has more than {_LONGEST_FILE:,} bytes; make it smaller")
        return base64.b64encode(path.read_bytes()).decode()
    except (OSError, ValueError, RuntimeError):
        # no path, then: the service says what is wrong with it
        return value


def _body(prompt: str, model: str, size: tuple[int, int, str | None], seed: int | None) -> dict[str, Any]:
    width, height, aspect_ratio = size
    return {
        "prompt": prompt,
        "model": model,
        "width": width,
        "height": height,
        "aspect_ratio": aspect_ratio,
        "seed": seed,
        "output_format": "jpeg",
    }


async def _shown(client: httpx.AsyncClient, job: Mapping[str, Any]) -> list[ContentBlock]:
    """The picture of a job that has ended. Raises `ToolError` where there is none."""
    if job["state"] != "ready":
        raise ToolError(job["error"]["message"] if job["error"] else f"the job was {job['state']}")
    result = job["result"]
    file = await client.get(f"/v1/jobs/{job['id']}/picture")
    file.raise_for_status()
    words = [f"id {job['id']}", f"{result['width']}x{result['height']}", f"seed {result['seed']}", result["model"]]
    notes = "".join(f"\nNote: {warning}" for warning in result["warnings"])
    return [
        TextContent(type="text", text=", ".join(words) + notes),
        ImageContent(type="image", data=base64.b64encode(file.content).decode(), mime_type=result["media_type"]),
    ]


async def _told(answer: Awaitable[httpx.Response]) -> dict[str, Any]:
    """What the service answered. Raises `ToolError` with its words."""
    try:
        response = await answer
        body: dict[str, Any] = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise ToolError("the service does not answer; see whether licht serve runs") from error
    if response.is_success:
        return body
    raise ToolError(_message(body))


def _message(body: Mapping[str, Any]) -> str:
    """The words of an error of either shape."""
    match body:
        case {"message": str(message)} | {"error": {"message": str(message)}}:
            return message
        case _:
            return "the service refuses this"


def headers_of(
    given: Mapping[str, str], names: Sequence[str] = ("x-key", "api-key", "authorization", "host")
) -> dict[str, str]:
    """The headers of a call that say whose it is and how the service is reached."""
    return {name: given[name] for name in names if name in given}
