"""Limits of this process, for tests of what happens at them: little memory, a full disk."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def little_memory(headroom_bytes: int = 2 * 2**30) -> Iterator[None]:
    """Whoever wants more gets a `MemoryError`, and the machine that tests run on is spared."""
    in_use = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    with _limited(resource.RLIMIT_AS, in_use + headroom_bytes):
        yield


@contextmanager
def full_disk(file_bytes: int) -> Iterator[None]:
    """No file may grow beyond this: what writing to a full disk is like, without one."""
    with _limited(resource.RLIMIT_FSIZE, file_bytes):
        yield


@contextmanager
def _limited(what: int, limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))
