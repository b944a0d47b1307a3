"""The studio's files, under a policy that lets nothing run but them, and what a page needs to know to begin."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from licht import __version__
from licht.core.errors import UnknownJob
from licht.service.api.auth import Guarded, needs, open_to_all
from licht.service.api.parts import key_of, parts_of
from licht.service.keys import Scope
from licht.service.metering import MILLI
from licht.service.settings import Tier

FOLDER: Final = Path(__file__).parents[2] / "studio"
MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}
POLICY: Final = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; connect-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the page, held in memory: all of them together are small."""

    data: bytes
    media_type: str
    tag: str


class About(BaseModel):
    """What this service offers to the key that asks. `native` says what the weights do by themselves.

    Before a worker is `ready`, `weights` are those that will draw and `native` is not known.
    """

    version: str
    weights: str
    ready: bool
    native: dict[str, Any] | None
    upsampling: bool
    tiers: dict[str, dict[str, Any]]
    key: dict[str, Any]


def read_files(folder: Path = FOLDER) -> dict[str, _File]:
    """The page's files by their paths. What has no known media type is not served."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in MEDIA_TYPES:
            data = path.read_bytes()
            tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
            found[path.relative_to(folder).as_posix()] = _File(data, MEDIA_TYPES[path.suffix], tag)
    return found


def router() -> APIRouter:
    """The page at `/`, its files below `/studio/`, and `/v1/about`."""
    files = read_files()
    made = APIRouter(route_class=Guarded, tags=["studio"])

    @open_to_all
    async def page(request: Request) -> Response:
        return _answer(request, files["index.html"])

    @open_to_all
    async def file(request: Request, path: str) -> Response:
        if path not in files:
            raise UnknownJob("there is no such file", field="path")
        return _answer(request, files[path])

    made.add_api_route("/", page, methods=["GET"], response_class=Response, include_in_schema=False)
    made.add_api_route("/studio/{path:path}", file, methods=["GET"], response_class=Response, include_in_schema=False)
    made.add_api_route("/v1/about", about, methods=["GET"], response_model=About)
    return made


def _answer(request: Request, file: _File) -> Response:
    # asked for again each time, so that an upgrade is seen at once; the tag saves sending it
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache", "ETag": file.tag}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    return Response(file.data, media_type=file.media_type, headers=headers)


@needs(Scope.GENERATE)
def about(request: Request) -> About:
    """Version, weights, tiers with prices and defaults, and what the key may do."""
    parts, key = parts_of(request), key_of(request)
    ready = [row for row in parts.register.list() if row.ready_at is not None]
    told = ready[0].about if ready else None
    credits_left = key.credits_milli / MILLI if key.credits_milli is not None else None
    return About(
        version=__version__,
        weights=ready[0].model if ready else Path(parts.settings.worker.model).name,
        ready=bool(ready),
        native=asdict(told) if told is not None else None,
        upsampling=parts.settings.upsampling.configured,
        tiers={name: _tier(tier) for name, tier in parts.tiers.items()},
        key={"name": key.name, "prefix": key.prefix, "scopes": list(key.scopes), "credits": credits_left},
    )


def _tier(tier: Tier) -> dict[str, Any]:
    return tier.model_dump(mode="json", include=_SHOWN)


_SHOWN: Final = {"first_mp", "further_mp", "max_references", "steps", "guidance", "width", "height", "output_format"}
