"""Waiting for the threads of libraries before a process ends.

A thread of Gloo lets go of the last tensors that it sent a moment after everybody has got them. It needs the
interpreter's lock for that, and the process is aborted if the interpreter is ending by then.
"""

import threading
import time
from pathlib import Path
from typing import Final

_THREADS: Final = Path("/proc/self/task")
_PAUSE_S: Final = 0.005
_PAUSES: Final = 20


def let_threads_rest(most_s: float) -> None:
    """Give the interpreter's lock away until no other thread has had anything to do for a tenth of a second.

    Waits at most `most_s` seconds. Where the system does not say what threads do, a tenth of a second must be enough.
    """
    until, quiet = time.monotonic() + most_s, 0
    while quiet < _PAUSES and time.monotonic() < until:
        time.sleep(_PAUSE_S)
        quiet = 0 if _others_run() else quiet + 1


def _others_run() -> bool:
    """Whether another thread of this process runs, or would if it were given a core."""
    own = str(threading.get_native_id())
    return any(_state(thread / "stat") == "R" for thread in _threads() if thread.name != own)


def _threads() -> list[Path]:
    return list(_THREADS.iterdir()) if _THREADS.is_dir() else []


def _state(path: Path) -> str:
    try:
        # the name before it may hold anything, parentheses too
        return path.read_text("ascii", "replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""  # it has ended
