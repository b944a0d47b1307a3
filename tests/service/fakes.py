"""An engine that draws at once, and misbehaves when its prompt says so. It needs no torch."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from licht.core.errors import InvalidRequest, OutOfMemory, Refused
from licht.core.request import ImageRequest, Picture, Progress
from licht.core.sizes import Size
from licht.safety.policy import Level, Policy, release
from licht.service.queue.register import About
from licht.service.settings import Settings
from licht.service.worker.drawing import Drawn, Events, Manner, PreviewDrawn

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
    about = About(_STEPS, None, takes_guidance=False, max_references=10, width=64, height=64)

    def __init__(self, step_s: float = 0.0) -> None:
        self.step_s = step_s
        self.requests: list[ImageRequest] = []
        self.tolerances: list[int] = []
        self.finishes: list[str] = []
        self.closed_after: list[int] = []
        self.hold: Callable[[int], None] = lambda step: None
        """Called before each step of the prompt "held": it goes on when that returns."""
        self.picture: bytes | None = None
        """What it draws, if not a plain colour."""

    def draw(self, request: ImageRequest, manner: Manner) -> Events:
        self.requests.append(request)
        self.tolerances.append(manner.tolerance)
        self.finishes.append(manner.finish)
        if request.prompt in _ERRORS:
            raise _ERRORS[request.prompt]
        step_s = float(request.prompt.split()[1]) if request.prompt.startswith("slow ") else self.step_s
        steps = request.steps or _STEPS
        done = 0
        try:
            yield Progress("encode_prompt", 0, 1)
            for done in range(1, steps + 1):
                time.sleep(step_s)
                if request.prompt == "held":
                    self.hold(done)
                yield Progress("denoise", done, steps)
                if request.previews:
                    yield PreviewDrawn(done, steps, 8, 8, _png(Size(8, 8), done))
        except GeneratorExit:
            self.closed_after.append(done)
            raise
        if request.prompt == "refuse-picture":
            raise Refused("not out of this house")
        size = request.size or request.whole_size
        assert size is not None
        seed = request.seeds[0]
        data = self.picture or release(_plain(size, seed), Policy(Level.OFF), manner.file_format).data
        yield Drawn(data, manner.file_format, size.width, size.height, seed, steps, request.guidance, request.prompt)


def _plain(size: Size, seed: int) -> Picture:
    return Picture(size.width, size.height, bytes((seed % 256, 1, 2)) * size.area_px)


def _png(size: Size, seed: int) -> bytes:
    return release(_plain(size, seed), Policy(Level.OFF), "PNG").data


class ForgetfulDrawer(FakeDrawer):
    """The same for a process that draws for long: it keeps nothing."""

    def draw(self, request: ImageRequest, manner: Manner) -> Events:
        for kept in (self.requests, self.tolerances, self.finishes, self.closed_after):
            kept.clear()
        return super().draw(request, manner)


def open_fake(settings: Settings) -> FakeDrawer:
    """For `worker.engine`."""
    del settings
    return ForgetfulDrawer()
