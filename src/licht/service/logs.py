"""Structured logs: one JSON object a line on stderr. Prompts, keys and pictures are never among the fields."""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}

REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("licht_request_id", default=None)
"""The id of the request that is being answered here."""


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, what happened, and what was passed as `extra`."""

    def __init__(self, process: str) -> None:
        """`process` is the role that writes."""
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "event": record.getMessage(),
        }
        request_id = REQUEST_ID.get()
        if request_id is not None:
            told["request_id"] = request_id
        told.update({name: value for name, value in record.__dict__.items() if name not in _STANDARD})
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


def set_up_logging(level: str, process: str) -> None:
    """Write everything from `level` on; libraries only from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("licht").setLevel(level.upper())
