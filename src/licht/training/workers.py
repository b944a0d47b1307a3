"""Work that is shared out to processes, one for each core, and comes back in order."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

import torch

from licht.core.errors import OutOfMemory
from licht.training.files import not_written

T = TypeVar("T")
Span = tuple[int, int]
"""(first, count)."""

_MOST: Final = 16
_WORTH: Final = 16
"""Fewer spans are done here: a process takes seconds to start."""
_AHEAD: Final = 2
"""So many spans of each process may be done before they are taken."""


def usable_cores() -> int:
    """Cores that this process may use, at most 16."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(count, _MOST)


def made_in_order(make: Callable[[int, int], T], spans: Sequence[Span], workers: int) -> Generator[T, None, None]:
    """Yield `make(*span)` for each span, in order; by several processes where there is enough to do.

    `make` must be picklable then, and is copied once to each process. What it raises is raised here.
    Raises `OutOfMemory` if a process is killed, `OutputFailed` if there is no room for the copy.
    """
    if workers < 2 or len(spans) < _WORTH:
        yield from (make(*span) for span in spans)
        return
    # forked processes would share the state of torch's threads
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)
    waiting: deque[Future[T]] = deque()
    try:
        with TemporaryDirectory() as folder:
            kept = _keep(make, Path(folder))
            for span in spans:
                waiting.append(pool.submit(_made, kept, *span))
                if len(waiting) >= _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise OutOfMemory(
            "a process that prepares data was killed, most likely for want of memory; free some and run again, "
            "it goes on from there"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _keep(make: Callable[[int, int], Any], folder: Path) -> Path:
    """The copy for the processes: not sent by the pool, for which torch would move networks into shared memory."""
    kept = folder / "make"
    try:
        kept.write_bytes(pickle.dumps(make))
    except OSError as error:
        raise not_written(kept, error) from error
    return kept


def _begin() -> None:
    # whoever started this decides what an interruption means
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Nobody else ends the workers of a process that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _made(kept: Path, first: int, count: int) -> Any:  # noqa: ANN401 - whatever is made
    return _read(kept)(first, count)


@lru_cache(maxsize=1)
def _read(kept: Path) -> Callable[[int, int], Any]:
    made: Callable[[int, int], Any] = pickle.loads(kept.read_bytes())  # noqa: S301 - this process's parent wrote it
    return made
