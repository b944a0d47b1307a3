"""One dependency for every route: what a route asks for is written on it, and a route without a word stays shut."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final, TypeVar

from fastapi import HTTPException, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from licht.core.errors import NotAuthenticated, NotPermitted
from licht.service.api.parts import parts_of
from licht.service.keys import Scope, is_well_formed
from licht.service.settings import Settings

_MARK: Final = "__licht_access__"
_UNLESS: Final = "__licht_open_by_setting__"
_OPEN: Final = "open"

F = TypeVar("F", bound=Callable[..., Any])


def open_to_all(endpoint: F) -> F:
    """Mark a route that needs no key."""
    setattr(endpoint, _MARK, _OPEN)
    return endpoint


def needs(scope: Scope, unless: Callable[[Settings], bool] | None = None) -> Callable[[F], F]:
    """Mark a route that needs a key with `scope`; where `unless` says so, it also answers who has none."""

    def mark(endpoint: F) -> F:
        setattr(endpoint, _MARK, scope.value)
        setattr(endpoint, _UNLESS, unless)
        return endpoint

    return mark


def access_of(endpoint: object) -> str | None:
    """What a route asks for: "open", a scope, or None where nobody has said."""
    return getattr(endpoint, _MARK, None)


_HEADER: Final = APIKeyHeader(name="x-key", auto_error=False, description="A key of this service")
_BEARER: Final = HTTPBearer(auto_error=False, description="The same key")


async def authenticate(
    request: Request,
    _key: Annotated[str | None, Security(_HEADER)] = None,
    _token: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)] = None,
) -> None:
    """Let a request through to a route that `Guarded` has looked at, or look now. Raises what becomes 403 or 422.

    `_key` and `_token` are there for the document only.
    """
    if getattr(request.state, "let_in", None) is not request.scope["endpoint"]:
        await _look(request)


class Guarded(APIRoute):
    """A route that looks at the key before anything of a body is read: bodies are large, and strangers many."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of the framework, behind the look at the key."""
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            await _look(request)
            return await inner(request)

        return handler


async def _look(request: Request) -> None:
    """Keep the key of a request that may pass, and that it may."""
    endpoint = request.scope["endpoint"]
    access = access_of(endpoint)
    if access is None:
        raise NotPermitted("Not permitted")
    if access != _OPEN:
        await asyncio.to_thread(_check, request, access, getattr(endpoint, _UNLESS, None))
    request.state.let_in = endpoint


def _check(request: Request, access: str, unless: Callable[[Settings], bool] | None) -> None:
    text = _given(request)
    if text is None and unless is not None and unless(parts_of(request).settings):
        return
    if text is None:
        raise NotAuthenticated("Not authenticated")
    if not is_well_formed(text):
        raise HTTPException(422, "Invalid API key format")
    key = parts_of(request).keys.authenticate(text)
    if access not in key.scopes:
        raise NotPermitted(f"this key lacks the scope {access}")
    request.state.key = key


def _given(request: Request) -> str | None:
    """BFL's header, else the two others that clients send."""
    for header in ("x-key", "api-key"):
        if (text := request.headers.get(header)) is not None:
            return text
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
