"""Weights that are mapped from files: asked for before they are used, let go of afterwards.

The operating system reads mapped pages when they are touched, and keeps them as long as it likes. These hints make it
read ahead of time, and hand pages back at once. Nothing is lost by either: what is let go is read again when it is
touched. They do nothing on systems other than Linux, and to memory that is not mapped from a file.
"""

import ctypes
import mmap
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from torch import Tensor

_ASK: Final = 3
_LET_GO: Final = 4
"""What Linux calls MADV_WILLNEED and MADV_DONTNEED."""


@dataclass(frozen=True, slots=True)
class Mappings:
    """Where files are mapped in this process, as it was when this was made: ranges of addresses in ascending order."""

    starts: tuple[int, ...]
    stops: tuple[int, ...]

    def ask_for(self, tensors: Iterable[Tensor]) -> None:
        """Begin to read the pages of those tensors that lie in a file; returns at once."""
        self._advise(tensors, _ASK)

    def let_go(self, tensors: Iterable[Tensor]) -> None:
        """Hand back the pages of those tensors that lie in a file. They must not have been written to."""
        self._advise(tensors, _LET_GO)

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor lies in a file."""
        return self._range(tensor) is not None

    def _advise(self, tensors: Iterable[Tensor], advice: int) -> None:
        libc = _libc()
        for tensor in tensors:
            found = self._range(tensor) if libc is not None else None
            if libc is not None and found is not None:
                start, stop = found
                if advice == _LET_GO:  # pages at the edges may hold other tensors too
                    start, stop = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, stop // mmap.PAGESIZE * mmap.PAGESIZE
                else:
                    start = start // mmap.PAGESIZE * mmap.PAGESIZE
                if stop > start:
                    libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), advice)

    def _range(self, tensor: Tensor) -> tuple[int, int] | None:
        if tensor.device.type != "cpu" or tensor.is_mkldnn or not tensor.numel():
            return None
        start = tensor.data_ptr()
        stop = start + tensor.numel() * tensor.element_size()
        place = bisect_right(self.starts, start) - 1
        inside = place >= 0 and stop <= self.stops[place] and tensor.is_contiguous()
        return (start, stop) if inside else None


def mappings() -> Mappings:
    """The private file mappings of this process at this moment."""
    if not sys.platform.startswith("linux"):
        return Mappings((), ())
    ranges = []
    for line in Path("/proc/self/maps").read_text("utf-8", "replace").splitlines():
        addresses, rights, _, _, inode, *name = line.split(maxsplit=5)
        # code is mapped too, and some of it is written to when it is loaded
        if inode != "0" and rights[2:] == "-p" and name and name[0].endswith((".safetensors", ".gguf")):
            start, _, stop = addresses.partition("-")
            ranges.append((int(start, 16), int(stop, 16)))
    ranges.sort()
    return Mappings(tuple(start for start, _ in ranges), tuple(stop for _, stop in ranges))


def trim() -> None:
    """Hand freed memory back to the system."""
    libc = _libc()
    if libc is not None and hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def keep_freed_memory() -> bool:
    """Keep up to a gigabyte of freed memory for the next activations instead of handing it back; whether that worked.

    Otherwise every large intermediate result is fresh memory, which the system must fill with zeros page by page: a
    seventh of a step's time. `trim` hands back what is kept.
    """
    return _keep(2**30)


def hand_back_freed_memory() -> bool:
    """The opposite, for where memory is short: large blocks go back as soon as they are freed, those kept go at once."""
    trim()
    return _keep(2**25)


@contextmanager
def handing_back() -> Iterator[None]:
    """Hand large blocks back as soon as they are freed, within this; what was kept so far goes back at once.

    For few and very large results, such as a decoder's: what lies between those that are kept doubles their memory.
    """
    hand_back_freed_memory()
    try:
        yield
    finally:
        keep_freed_memory()


@contextmanager
def own_pages() -> Iterator[None]:
    """Where freed memory is kept, give what is allocated within this pages of its own all the same.

    For what stays: among activations that come and go, each such block leaves a hole that the next one does not fit.
    """
    libc, kept_bytes = _libc(), _TOLD.kept_bytes
    if libc is None or kept_bytes is None:
        yield
        return
    libc.mallopt(_MMAP_THRESHOLD, 2**20)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, kept_bytes)


@dataclass
class _Told:
    """What the C library's allocator was told last; it does not say itself."""

    kept_bytes: int | None = None


_TOLD: Final = _Told()


def _keep(kept_bytes: int) -> bool:
    libc = _libc()
    if libc is None or not hasattr(libc, "mallopt"):
        return False
    done = bool(libc.mallopt(_MMAP_THRESHOLD, kept_bytes) and libc.mallopt(_TRIM_THRESHOLD, kept_bytes))
    if done:
        _TOLD.kept_bytes = kept_bytes
    return done


_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
"""What glibc calls them in malloc.h."""


@cache
def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform.startswith("linux") else None
