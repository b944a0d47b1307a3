"""The application: routes, errors, the layer around them, and what runs beside."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI

from licht import __version__
from licht.service import links
from licht.service.api import (
    admin,
    arena,
    background,
    bfl,
    elsewhere,
    gallery,
    mcp,
    native,
    openai,
    operations,
    plan,
    references,
    series,
    structure,
    studio,
    verify,
)
from licht.service.api.auth import authenticate
from licht.service.api.errors import RESPONSES, add_handlers
from licht.service.api.inputs import Inputs
from licht.service.api.own import find_own
from licht.service.api.parts import Parts, open_parts
from licht.service.api.surround import Surround
from licht.service.settings import Settings

OPEN_PATHS: Final = ("/livez", "/readyz", "/v1/get_result", f"{links.PATH}{{job_id}}")
"""Paths of the document that need no key."""


class _Application(FastAPI):
    """FastAPI, with a document that says which routes need no key."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        made = self.openapi_schema is not None
        document = super().openapi()
        if not made:
            for path in OPEN_PATHS:
                for operation in document["paths"][path].values():
                    operation["security"] = []
        return document


def create_app(settings: Settings, parts: Parts | None = None) -> FastAPI:
    """Build the application; the database is opened and migrated now, so that mistakes are seen before listening."""
    opened = parts or open_parts(settings)
    app = _Application(
        title="Licht",
        summary="FLUX.2 on your own hardware, over the protocol of the hosted API",
        version=__version__,
        lifespan=_lifespan,
        dependencies=[Depends(authenticate)],
        responses=RESPONSES,
        # their pages load scripts from elsewhere; the document itself is at /openapi.json
        docs_url=None,
        redoc_url=None,
        # FastAPI's own would note query strings, which hold signatures, and what was wrong with a body, which is private
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.parts = opened
    fetcher = opened.fetcher if settings.fetch.enabled else None
    app.state.inputs = Inputs(settings.inputs, fetcher, partial(find_own, opened))
    app.state.mcp = mcp.McpOverHttp(app, settings.server.max_body_bytes, opened.ending)
    app.state.measurements = operations.Measurements(opened)
    app.include_router(operations.router())
    app.include_router(bfl.router(opened))
    for module in (native, plan, references, gallery, series, verify, openai, mcp):
        app.include_router(module.router())
    app.include_router(arena.router())
    app.include_router(admin.router())
    app.include_router(studio.router())
    app.include_router(structure.router())
    app.include_router(elsewhere.router())
    add_handlers(app)
    app.add_middleware(
        Surround,
        hosts=_hosts(settings),
        bodies=opened.open_bodies,
        ending=opened.ending,
        observe=app.state.measurements.observe,
        telemetry=opened.telemetry,
    )
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Parts = app.state.parts
    tasks = background.start(parts)
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await parts.changes.close()
    await app.state.mcp.close()
    await parts.fetcher.aclose()
    await asyncio.to_thread(parts.telemetry.close)
    parts.database.close()


def _hosts(settings: Settings) -> frozenset[str]:
    named = {host.lower() for host in (*settings.server.allowed_hosts, settings.server.host)}
    if settings.server.public_url is not None:
        named.add((urlsplit(settings.server.public_url).hostname or "").lower())
    return frozenset(named)
