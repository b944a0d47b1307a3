"""A stand-in for the Hugging Face hub: one repository, served from memory on this machine."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What is served, and what was asked for. `budget_bytes` is how much may still be delivered before the line breaks."""

    repository: str
    files: dict[str, bytes]
    licence: str = "apache-2.0"
    gated: bool = False
    budget_bytes: int | None = None
    garbage: bool = False
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    @classmethod
    def of_folder(cls, repository: str, folder: Path) -> "Hub":
        """Serve the files of a folder."""
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        return cls(repository, files)

    def fetched(self) -> list[tuple[str, str | None]]:
        """(path, range) of every file that was fetched."""
        return [
            (path.partition(f"/resolve/{REVISION}/")[2], span)
            for verb, path, span in self.asked
            if verb == "GET" and "/resolve/" in path
        ]

    def card(self) -> dict[str, Any]:
        """What the hub says about the repository."""
        return {
            "id": self.repository,
            "sha": REVISION,
            "private": False,
            "gated": "auto" if self.gated else False,
            "cardData": {"license": self.licence},
            "tags": [],
            "downloads": 0,
            "siblings": [sibling(path, data) for path, data in self.files.items()],
        }


def sibling(path: str, data: bytes) -> dict[str, Any]:
    """A file in the hub's list; of large ones it knows the hash."""
    known: dict[str, Any] = {"rfilename": path, "size": len(data)}
    if path.endswith(".safetensors"):
        known["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return known


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:  # noqa: C901 - one handler, one case a line
    """Serve `hub` at a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append((self.command, path, self.headers.get("Range")))
            if hub.garbage:
                self._send(200, b"<html>hello</html>", {}, with_body)
            elif path.startswith(f"/api/models/{hub.repository}") and "/tree/" not in path:
                self._send(200, json.dumps(hub.card()).encode(), {"Content-Type": "application/json"}, with_body)
            elif path.startswith(f"/{hub.repository}/resolve/{REVISION}/") and not hub.gated:
                self._file(path.partition(f"/resolve/{REVISION}/")[2], with_body)
            elif hub.gated:
                self._send(403, b"{}", {"X-Error-Code": "GatedRepo"}, with_body)
            else:
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)

        def _file(self, name: str, with_body: bool) -> None:
            data = hub.files[name]
            first = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            more = {
                "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
                "X-Repo-Commit": REVISION,
                "Accept-Ranges": "bytes",
            }
            if first:
                more["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            self._send(206 if first else 200, data[first:], more, with_body)

        def _send(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if not with_body:
                return
            if hub.budget_bytes is not None and "/resolve/" in self.path:
                sent = body[: hub.budget_bytes]
                hub.budget_bytes -= len(sent)
                self.wfile.write(sent)
                self.close_connection = True
                return
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
