"""The other half of a worker: it looks at pictures for those who want to know where they come from, while it draws."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from licht.core.errors import InvalidImage, InvalidRequest, LeaseLost, LichtError, NotAvailable
from licht.service.queue.looks import Answer, Look, Looks, unsealed
from licht.service.queue.wake import Waker
from licht.service.storage import Storage

_LOG: Final = logging.getLogger(__name__)
_LEAST_S: Final = 0.05
"""Looking for looks costs the drawing time too: twenty times a second are enough for anybody."""

Examine = Callable[[bytes], Mapping[str, Any]]
"""What can be found out about a picture file, as plain values for JSON. Raises `InvalidRequest` for what is no picture."""


class Looker:
    """Looks at one picture after another, in a thread of its own."""

    def __init__(self, looks: Looks, storage: Storage, examine: Examine, owner: str, idle_s: float = 1.0) -> None:
        """Look as the worker `owner`, with `examine`."""
        self._looks = looks
        self._storage = storage
        self._examine = examine
        self._owner = owner
        self._idle_s = idle_s
        self._began: float | None = None

    @property
    def busy_s(self) -> float:
        """For how long it has been looking at the picture in hand; 0 without one."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    def run(self, stopping: threading.Event) -> None:
        """One picture after another until `stopping` is set."""
        while not stopping.is_set():
            try:
                with Waker(self._looks.database) as waker:
                    while not stopping.is_set():
                        if not self.look_once():
                            waker.wait(self._idle_s)
                            stopping.wait(_LEAST_S)
            except NotAvailable as error:
                _LOG.warning("will look again", extra={"worker": self._owner, "reason": error.message})
                stopping.wait(self._idle_s)

    def look_once(self) -> bool:
        """Take one picture and tell what was found; False if there was none. Raises `NotAvailable`."""
        look = self._looks.claim(self._owner)
        if look is None:
            return False
        self._began = time.monotonic()
        try:
            self._looks.finish(look, self._answer(look))
        except LeaseLost as error:
            _LOG.info("dropped", extra={"worker": self._owner, "reason": error.message})
        finally:
            self._began = None
        return True

    def _answer(self, look: Look) -> Answer:
        try:
            return Answer(report=dict(self._examine(unsealed(self._storage.get(look.digest)))))
        except InvalidRequest as error:
            return Answer(error_code=InvalidImage.code, error=error.message)
        except LichtError as error:
            _LOG.warning("cannot look", extra={"worker": self._owner, "reason": error.message})
            return Answer(error_code=NotAvailable.code, error="pictures cannot be looked at here at the moment")
        except Exception:  # noqa: BLE001 - a defect in a reader must not end the worker; its text is for the log only
            _LOG.exception("cannot look", extra={"worker": self._owner})
            return Answer(error_code="internal_error", error="the picture could not be looked at")
