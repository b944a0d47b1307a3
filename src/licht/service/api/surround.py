"""Around every request: its id, the Host check, the cap on bodies, safe headers, one log line, one measurement."""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from licht.service.api.ending import STOPPED, Ending
from licht.service.api.errors import body, retry_after
from licht.service.api.open_bodies import TOO_LARGE, OpenBodies
from licht.service.api.openai_errors import OpenAIRoute
from licht.service.logs import REQUEST_ID
from licht.service.telemetry import Telemetry

_LOG: Final = logging.getLogger(__name__)
_REQUEST_ID: Final = re.compile(r"[\w.-]{1,100}")
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:]+\]|[\w.-]+)(?::\d{1,5})?")
_ORIGIN: Final = re.compile(r"https?://(\[[0-9a-fA-F:]+\]|[\w.-]+)(?::\d{1,5})?", re.IGNORECASE)
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_SAFE_HEADERS: Final = (
    ("x-content-type-options", "nosniff"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
)

Observe = Callable[[str, str, int, float], None]
"""Called with method, route, status and seconds."""


class Surround:
    """The outermost layer of the application."""

    def __init__(
        self,
        app: ASGIApp,
        hosts: frozenset[str],
        bodies: OpenBodies,
        ending: Ending,
        observe: Observe,
        telemetry: Telemetry,
    ) -> None:
        """Answer only the names in `hosts` ("*" for any), and read only what `bodies` has room for."""
        self._app = app
        self._hosts = hosts
        self._bodies = bodies
        self._ending = ending
        self._observe = observe
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        started, status, begun = time.perf_counter(), 500, False

        async def send_marked(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                answer = MutableHeaders(scope=message)
                answer["x-request-id"] = request_id
                for name, value in _SAFE_HEADERS:
                    answer.setdefault(name, value)
                answer.setdefault("cache-control", "no-store")
                if self._ending.draining:
                    # the next request of this caller is for the next process
                    answer["connection"] = "close"
            await send(message)

        noted = REQUEST_ID.set(request_id)
        method, parent = scope["method"], headers.get("traceparent")
        try:
            with self._telemetry.span(method, "server", parent, {"http.request.method": method}) as span:
                await self._answer(scope, receive, send_marked, headers)
                span.rename(f"{method} {_route(scope)}")
                span.set("http.route", _route(scope))
                span.set("http.response.status_code", status)
                span.set("licht.request_id", request_id)
                if status >= 500:
                    span.failed(str(status))
        except asyncio.CancelledError:
            # the server waits no longer for what this call waits for; its caller hears why
            if begun or not self._ending.over:
                raise
            await _stopped(scope)(scope, receive, send_marked)
        finally:
            took_s = time.perf_counter() - started
            self._observe(method, _route(scope), status, took_s)
            fields = {"method": method, "route": _route(scope), "status": status}
            _LOG.debug("request", extra={**fields, "took_ms": round(took_s * 1000, 2)})
            REQUEST_ID.reset(noted)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        refusal = self._refusal(scope["method"], headers)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        length = headers.get("content-length")
        opened = self._bodies.open(scope, receive, int(length) if length is not None else None)
        try:
            await self._app(scope, opened.receive, send)
        finally:
            opened.close()

    def _refusal(self, method: str, headers: Headers) -> JSONResponse | None:
        host = _HOST.fullmatch(headers.get("host", ""))
        if host is None or not ({"*", host[1].lower()} & self._hosts):
            message = "this name is not served here; the operator can add it to server.allowed_hosts"
            return JSONResponse(body(message, message, "unknown_host"), 421)
        origin = headers.get("origin")
        if origin is not None and method not in _SAFE and not self._is_ours(origin):
            message = "requests from that origin are not taken; the operator can add its name to server.allowed_hosts"
            return JSONResponse(body(message, message, "unknown_origin"), 403)
        length = headers.get("content-length")
        if length is not None and (
            not (length.isascii() and length.isdigit()) or int(length[:20]) > self._bodies.one_bytes
        ):
            return JSONResponse(body(TOO_LARGE, TOO_LARGE, "http_413"), 413)
        return None

    def _is_ours(self, origin: str) -> bool:
        """Whether a page of that origin may have things done: one of the names that are served, never "null"."""
        found = _ORIGIN.fullmatch(origin)
        return found is not None and bool({"*", found[1].lower()} & self._hosts)


def _stopped(scope: Scope) -> JSONResponse:
    """What a call hears that was still open at the end, in the shape of its protocol."""
    route = scope.get("route")
    if isinstance(route, OpenAIRoute):
        return route.refusal(STOPPED)
    return JSONResponse(body(STOPPED.message, STOPPED.message, STOPPED.code), 503, retry_after(STOPPED, 503))


def _route(scope: Scope) -> str:
    """The template, not the path: paths hold ids, and would make endless series."""
    return str(getattr(scope.get("route"), "path", "unknown"))
