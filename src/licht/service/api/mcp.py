"""MCP over HTTP: each call is answered by itself, with the key that it came with."""

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import httpx
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response
from starlette.types import Message, Receive, Scope, Send

from licht.service.api.auth import needs
from licht.service.api.ending import Ending
from licht.service.api.open_bodies import WITHIN
from licht.service.api.openai_errors import OpenAIRoute, Problem
from licht.service.keys import Scope as KeyScope

if TYPE_CHECKING:
    from mcp.server.mcpserver import Context
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager


_NOT_DONE: Final = -32000
"""JSON-RPC leaves this one to servers."""


class McpOverHttp:
    """The protocol's own server, opened with the first call: importing it takes most of a second."""

    def __init__(self, app: FastAPI, max_body_bytes: int, ending: Ending) -> None:
        """Serve the tools of `app`'s own routes, until the `ending`."""
        self._ending = ending
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._manager: StreamableHTTPSessionManager | None = None
        self._opening = asyncio.Lock()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        async with self._opening:
            if self._manager is None:
                self._manager = await self._open()
        with self._ending.call():
            await self._manager.handle_request(scope, receive, send)

    async def close(self) -> None:
        """End it."""
        self._closing.set()
        if self._task is not None:
            await self._task

    async def _open(self) -> "StreamableHTTPSessionManager":
        manager = await asyncio.to_thread(self._build)
        opened = asyncio.Event()

        async def run() -> None:
            # a task of its own: the manager's scope must be left by whoever has entered it
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(manager.run())
                opened.set()
                await self._closing.wait()

        self._task = asyncio.create_task(run())
        await opened.wait()
        return manager

    def _build(self) -> "StreamableHTTPSessionManager":
        from mcp.server.transport_security import TransportSecuritySettings

        from licht.service import mcp

        def connect(ctx: "Context[Any, Any]") -> httpx.AsyncClient:
            headers = mcp.headers_of(ctx.headers or {})
            return httpx.AsyncClient(
                transport=httpx.ASGITransport(self._within), base_url=f"http://{headers['host']}", headers=headers
            )

        server = mcp.build(connect, stops=self._ending.stops)
        server.streamable_http_app(
            json_response=True,
            stateless_http=True,
            max_request_body_size=self._max_body_bytes,
            # names are checked around the whole application
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        return server.session_manager

    async def _within(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A call of the tools: what it carries came in with the call of whoever uses them."""
        await self._app({**scope, WITHIN: True}, receive, send)


class _Handed(Response):
    """A response that is made elsewhere, to a message that was read here."""

    def __init__(self, served: McpOverHttp, message: bytes) -> None:
        super().__init__()
        self._served = served
        self._message = message

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        unread = True

        async def again() -> Message:
            nonlocal unread
            if unread:
                unread = False
                return {"type": "http.request", "body": self._message, "more_body": False}
            return await receive()

        await self._served.handle(scope, again, send)


class McpRoute(OpenAIRoute):
    """A route whose errors are those of JSON-RPC, beside a status that says the same."""

    @staticmethod
    def shaped(said: Problem) -> dict[str, Any]:
        """An error that answers no call in particular: what was called was not read, or not let in."""
        error = {"code": _NOT_DONE, "message": said.message, "data": {"code": said.code}}
        return {"jsonrpc": "2.0", "id": None, "error": error}


def router() -> APIRouter:
    """The route."""
    made = APIRouter(tags=["mcp"], route_class=McpRoute)
    message = {"type": "object", "properties": {"jsonrpc": {"const": "2.0"}, "method": {"type": "string"}}}
    made.add_api_route(
        "/mcp",
        call,
        methods=["POST"],
        response_class=Response,
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": message}}}},
        responses={
            200: {"description": "A JSON-RPC answer", "content": {"application/json": {}}},
            202: {"description": "A notification was taken"},
            400: {"description": "No JSON-RPC message", "content": {"application/json": {}}},
            401: {"description": "No good key"},
            406: {"description": "The caller must accept application/json"},
        },
    )
    return made


@needs(KeyScope.GENERATE)
async def call(request: Request) -> Response:
    """One message of the Model Context Protocol (Streamable HTTP, stateless, JSON answers)."""
    served: McpOverHttp = request.app.state.mcp
    return _Handed(served, await request.body())
