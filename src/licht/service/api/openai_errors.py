"""Errors in the shape of OpenAI's API: `{"error": {"message", "type", "param", "code"}}`."""

import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from licht.core.errors import (
    IdempotencyConflict,
    IdempotencyRunning,
    InsufficientCredits,
    InvalidRequest,
    LichtError,
    NotAuthenticated,
    NotAvailable,
    NotPermitted,
    OutputFailed,
    Refused,
    TooManyJobs,
    UnknownJob,
    UnknownModel,
)
from licht.service.api.auth import Guarded
from licht.service.api.errors import retry_after

_LOG: Final = logging.getLogger(__name__)
_INVALID: Final = "invalid_request_error"
_SERVER: Final = "server_error"

# What an error of the tree is called over there: status, type, code; the first that fits counts.
_SHAPES: Final[tuple[tuple[type[LichtError], int, str, str], ...]] = (
    (NotAuthenticated, 401, _INVALID, "invalid_api_key"),
    (NotPermitted, 403, _INVALID, "permission_denied"),
    # their client would try again after any 429, which helps nobody here: it is told not to
    (InsufficientCredits, 429, "insufficient_quota", "insufficient_quota"),
    (TooManyJobs, 429, "requests", "rate_limit_exceeded"),
    (IdempotencyRunning, 409, _INVALID, "idempotency_running"),
    (IdempotencyConflict, 422, _INVALID, "idempotency_conflict"),
    (UnknownModel, 404, _INVALID, "model_not_found"),
    (UnknownJob, 404, _INVALID, "not_found"),
    (Refused, 400, "image_generation_user_error", "moderation_blocked"),
    (InvalidRequest, 400, _INVALID, "invalid_request"),
    (NotAvailable, 503, _SERVER, "not_available"),
    (OutputFailed, 503, _SERVER, "not_available"),
)


class Problem(BaseModel):
    """What went wrong; `param` is the field to blame."""

    message: str
    type: str
    param: str | None
    code: str | None


class ProblemBody(BaseModel):
    """Every error of these routes."""

    error: Problem


RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ProblemBody, "description": description}
    for status, description in (
        (400, "The request cannot be carried out, or was refused"),
        (401, "No good key"),
        (403, "A key that is good for something else"),
        (404, "There is no such model"),
        (409, "The first request with this Idempotency-Key is still running"),
        (413, "The body is too large"),
        (422, "The Idempotency-Key was used for another request"),
        (429, "Too many active jobs, or no credits"),
        (500, "The picture could not be drawn"),
        (503, "Try again in a moment"),
    )
}


def problem(error: LichtError) -> tuple[int, Problem]:
    """Status and body of an error of the tree."""
    for kind, status, category, code in _SHAPES:
        if isinstance(error, kind):
            named = error.code if code == "invalid_request" else code
            return status, Problem(message=error.message, type=category, param=error.field, code=named)
    return 500, Problem(message=error.message, type=_SERVER, param=None, code=error.code)


class OpenAIRoute(Guarded):
    """A route whose errors have this shape, those of keys and bodies included."""

    @staticmethod
    def shaped(said: Problem) -> dict[str, Any]:
        """The body of an error."""
        return ProblemBody(error=said).model_dump()

    def refusal(self, error: LichtError) -> JSONResponse:
        """The answer to a call that ends with an error of the tree."""
        status, said, headers = _of_tree(error)
        return JSONResponse(self.shaped(said), status, headers)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of the framework, with its errors caught."""
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await inner(request)
            except (LichtError, RequestValidationError, HTTPException) as error:
                status, said, headers = _told(error)
                return JSONResponse(self.shaped(said), status, headers)

        return handler


def _told(error: LichtError | RequestValidationError | HTTPException) -> tuple[int, Problem, Mapping[str, str]]:
    """Status, words and headers."""
    if isinstance(error, LichtError):
        return _of_tree(error)
    if isinstance(error, RequestValidationError):
        return 400, _of_body(error), {}
    status = 401 if error.detail == "Invalid API key format" else error.status_code
    kind = _INVALID if status < 500 else _SERVER
    said = Problem(message=str(error.detail), type=kind, param=None, code=f"http_{status}")
    return status, said, error.headers or {}


def _of_tree(error: LichtError) -> tuple[int, Problem, Mapping[str, str]]:
    status, said = problem(error)
    if status == 500:
        _LOG.error("error", extra={"code": error.code, "reason": error.message})
    if isinstance(error, InsufficientCredits):
        return status, said, {"x-should-retry": "false"}
    return status, said, retry_after(error, status)


def _of_body(error: RequestValidationError) -> Problem:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        # no field is to blame, and where the text breaks off is no name of one
        said = "the body is no valid JSON; send an object with prompt"
        return Problem(message=said, type=_INVALID, param=None, code=None)
    param = ".".join(str(part) for part in first["loc"][1:]) or None
    message = f"{param}: {first['msg']}" if param else str(first["msg"])
    return Problem(message=message, type=_INVALID, param=param, code=str(first["type"]))
