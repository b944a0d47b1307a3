"""Requests made by hand, for what a client library does not let a test see."""

import asyncio
import json
from typing import Any

from starlette.types import Message

from tests.service.api.conftest import Service


class Call:
    """One request, sent in pieces when they are asked for; `looked` says how often that was."""

    def __init__(self, service: Service, path: str, key: str | None, pieces: list[bytes], length: int | None) -> None:
        self.looked = 0
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self._app, self._pieces = service.app, iter(pieces)
        headers = {"host": "localhost", "content-type": "application/json", "accept": "application/json"}
        headers |= {"x-key": key} if key is not None else {}
        headers |= {"content-length": str(length)} if length is not None else {}
        self._scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1),
            "server": ("localhost", 80), "headers": [(k.encode(), v.encode()) for k, v in headers.items()], "state": {},
        }  # fmt: skip

    def run(self) -> "Call":
        """Until it is answered."""
        asyncio.run(self.answered())
        return self

    async def answered(self) -> None:
        """The same, within a loop."""
        await self._app(self._scope, self._receive, self._send)

    async def _receive(self) -> Message:
        self.looked += 1
        piece = next(self._pieces, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode().lower(): v.decode() for k, v in message["headers"]}
        self.body += message.get("body", b"")

    @property
    def told(self) -> Any:  # noqa: ANN401 - a JSON document
        return json.loads(self.body)
