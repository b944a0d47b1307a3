"""Errors as clients expect them: `detail` in FastAPI's shape and `message`, never a library's own words."""

import logging
from typing import Any, Final

from fastapi import FastAPI, Request
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
    NotServed,
    OutputFailed,
    TooManyJobs,
    UnknownFinetune,
    UnknownJob,
)
from licht.service.api.ending import Stopping

_LOG: Final = logging.getLogger(__name__)
_RETRY_AFTER_S: Final = 2
_BACK_AFTER_S: Final = 10
"""Whoever starts the service again needs about so long."""
_STATUS: Final[tuple[tuple[type[LichtError], int], ...]] = (
    (NotAuthenticated, 403),
    (NotPermitted, 403),
    (InsufficientCredits, 402),
    (TooManyJobs, 429),
    (IdempotencyConflict, 422),
    (IdempotencyRunning, 409),
    (UnknownJob, 404),
    (NotServed, 404),
    (UnknownFinetune, 404),
    (InvalidRequest, 422),
    (NotAvailable, 503),
    (OutputFailed, 503),
)


class FieldError(BaseModel):
    """What is wrong with one field."""

    loc: list[str | int]
    msg: str
    type: str


class ErrorBody(BaseModel):
    """Every error: `detail` as FastAPI's clients read it, `message` and `code` for the others."""

    detail: str | list[FieldError]
    message: str
    code: str


RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ErrorBody, "description": description}
    for status, description in (
        (400, "The body cannot be read"),
        (402, "The key's credits do not suffice"),
        (403, "No key, or none that is good for this"),
        (404, "There is no such thing, or not for this key"),
        (409, "The first request with this Idempotency-Key is still running"),
        (413, "The body is too large"),
        (421, "This name is not served here"),
        (422, "The request cannot be carried out"),
        (429, "The key has too many active jobs"),
        (503, "Try again in a moment"),
    )
}


def status_of(error: LichtError) -> int:
    """The HTTP status of an error of the tree."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def body(detail: object, message: str, code: str) -> dict[str, Any]:
    """An error body: `detail` for FastAPI's clients, `message` and `code` for the others."""
    return {"detail": detail, "message": message, "code": code}


def retry_after(error: LichtError, status: int) -> dict[str, str]:
    """When to try again, as a header, where trying again may help."""
    if status not in (409, 429, 503):
        return {}
    return {"Retry-After": str(_BACK_AFTER_S if isinstance(error, Stopping) else _RETRY_AFTER_S)}


def add_handlers(app: FastAPI) -> None:
    """Answer every error in our shape."""
    app.add_exception_handler(LichtError, _licht)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _defect)


async def _licht(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LichtError)  # noqa: S101 - it is registered for nothing else
    status = status_of(error)
    if status == 500:
        _LOG.error("error", extra={"code": error.code, "reason": error.message})
        return JSONResponse(body("Internal error", "Internal error", "internal_error"), status)
    detail: object = error.message
    if isinstance(error, InvalidRequest):
        location = ["body", *(error.field.split(".") if error.field else [])]
        detail = [{"loc": location, "msg": error.message, "type": error.code}]
    return JSONResponse(body(detail, error.message, error.code), status, retry_after(error, status))


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - it is registered for nothing else
    # what was sent is not repeated: it may be a picture, or a secret
    detail = [
        {"loc": [_plain(part) for part in each["loc"]], "msg": each["msg"], "type": each["type"]}
        for each in error.errors()
    ]
    where = ".".join(str(part) for part in detail[0]["loc"]) if detail else "request"
    message = f"{where}: {detail[0]['msg']}" if detail else "invalid request"
    return JSONResponse(body(detail, message, "invalid_request"), 422)


async def _http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for nothing else
    return JSONResponse(
        body(error.detail, str(error.detail), f"http_{error.status_code}"), error.status_code, error.headers
    )


async def _defect(request: Request, error: Exception) -> JSONResponse:
    _LOG.error("defect", exc_info=error, extra={"path": request.url.path})
    return JSONResponse(body("Internal error", "Internal error", "internal_error"), 500)


def _plain(part: object) -> str | int:
    return part if isinstance(part, str | int) and not isinstance(part, float) else str(part)
