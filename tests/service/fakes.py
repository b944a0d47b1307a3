"""An engine that draws at once, and misbehaves when its prompt says so. It needs no torch."""

import time
from collections.abc import Generator, Mapping
from typing import Final

from licht.core.errors import InvalidRequest, OutOfMemory, Refused
from licht.core.request import ImageRequest, Picture, Progress
from licht.safety.policy import Level, Policy, release
from licht.service.settings import Settings
from licht.service.worker.drawing import Drawn

_STEPS: Final = 4
_ERRORS: Final[Mapping[str, Exception]] = {
    "refuse-request": Refused("not in this house"),
    "invalid": InvalidRequest("the model cannot do that"),
    "no-memory": OutOfMemory("no memory"),
    "defect": ZeroDivisionError("secret inside"),
}


class FakeDrawer:
    """Draws a plain colour made of the seed."""

    name = "fake"
    licence = "Apache-2.0"

    def __init__(self, step_s: float = 0.0) -> None:
        self.step_s = step_s
        self.requests: list[ImageRequest] = []
        self.tolerances: list[int] = []
        self.closed_after: list[int] = []

    def draw(self, request: ImageRequest, file_format: str, tolerance: int) -> Generator[Progress | Drawn, None, None]:
        self.requests.append(request)
        self.tolerances.append(tolerance)
        if request.prompt in _ERRORS:
            raise _ERRORS[request.prompt]
        step_s = float(request.prompt.split()[1]) if request.prompt.startswith("slow ") else self.step_s
        steps = request.steps or _STEPS
        done = 0
        try:
            yield Progress("encode_prompt", 0, 1)
            for done in range(1, steps + 1):
                time.sleep(step_s)
                yield Progress("denoise", done, steps)
        except GeneratorExit:
            self.closed_after.append(done)
            raise
        if request.prompt == "refuse-picture":
            raise Refused("not out of this house")
        size = request.size
        assert size is not None
        seed = request.seeds[0]
        picture = Picture(size.width, size.height, bytes((seed % 256, 1, 2)) * size.area_px)
        released = release(picture, Policy(Level.OFF), file_format)
        yield Drawn(released.data, file_format, size.width, size.height, seed, steps, request.guidance)


def open_fake(settings: Settings) -> FakeDrawer:
    """For `worker.engine`."""
    del settings
    return FakeDrawer()
