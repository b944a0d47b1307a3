"""What a worker notices about itself: how long each stage takes, and how much memory it holds."""

import os
import sys
import time
from pathlib import Path


class StageClock:
    """Seconds by stage: what passes until an event belongs to the stage that the event tells about."""

    def __init__(self) -> None:
        self._at = time.perf_counter()
        self._seconds: dict[str, float] = {}
        # for traces: when a stage began and ended, in seconds since 1970
        self.spans: dict[str, tuple[float, float]] = {}
        self._wall = time.time()

    def note(self, stage: str) -> None:
        """An event of `stage` has come."""
        now = time.perf_counter()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._at
        self._at = now
        wall = time.time()
        begun = self.spans[stage][0] if stage in self.spans else self._wall
        self.spans[stage] = (begun, wall)
        self._wall = wall

    def seconds(self, last: str) -> dict[str, float]:
        """All of it; the time since the last event belongs to `last`."""
        self.note(last)
        return dict(self._seconds)


def resident_bytes() -> int | None:
    """The resident memory of this process; None where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def device_bytes() -> int | None:
    """What tensors hold on an accelerator with a memory of its own; None where there is none."""
    # a worker with another engine need not have loaded torch, and is not to load it for this
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return sum(int(torch.cuda.memory_allocated(number)) for number in range(torch.cuda.device_count()))
