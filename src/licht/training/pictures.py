"""Pictures rendered once and kept as raw bytes, so that every step reads only what it needs."""

import math
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from licht.training.files import Description, describe_new, not_written, refuse_other_data, write_text
from licht.training.workers import made_in_order

T = TypeVar("T")

Render = Callable[[int, int], Tensor]
"""(first index, count) -> uint8 pictures (count, H, W, 3); the same index always gives the same picture."""

WriteSheet = Callable[[Path, Tensor, Sequence[str]], None]
"""(path, uint8 pictures (B, H, W, 3), labels): passed in, because sheets belong to evaluation."""

_BLOCK_BYTES = 2**20


def reserve(path: Path, size_bytes: int) -> None:
    """Make a file of zeros that really has its place on the disk.

    A mapped file that is only declared large kills the process when the disk is full. Raises `OSError` instead, and
    leaves nothing behind.
    """
    try:
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size_bytes)
            else:  # macOS has no such call
                for written in range(0, size_bytes, _BLOCK_BYTES):
                    file.write(bytes(min(_BLOCK_BYTES, size_bytes - written)))
    except OSError:
        path.unlink(missing_ok=True)
        raise


def map_rows(
    path: Path, shape: tuple[int, ...], dtype: type[np.uint8] | type[np.uint16] | type[np.float16], progress: Path
) -> "np.memmap[Any, Any]":
    """Map a file of `shape`. Where it is missing or has another size it is made anew, and `progress` with it.

    Raises `OSError`.
    """
    size_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if not path.is_file() or path.stat().st_size != size_bytes:
        # first: what says that rows are done must not outlive them
        progress.unlink(missing_ok=True)
        reserve(path, size_bytes)
    return np.memmap(path, np.dtype(dtype), "r+", shape=shape)


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """Rows to be made, and where they go. `make` (first row, count) is picklable where there are several `workers`."""

    make: Callable[[int, int], T]
    write: Callable[[slice, T], None]
    chunk: int
    workers: int = 1


def fill_missing(progress: Path, total: int, work: Work[T], on_progress: Callable[[int, int], None]) -> None:
    """Make and write rows, a chunk at a time; the file `progress` says where to go on after an interruption.

    Raises `OutputFailed` where progress cannot be written, and what `made_in_order` raises.
    """
    firsts = range(_rows_done(progress), total, work.chunk)
    spans = [(first, min(work.chunk, total - first)) for first in firsts]
    with closing(made_in_order(work.make, spans, work.workers)) as every:
        for (first, count), made in zip(spans, every, strict=True):
            work.write(slice(first, first + count), made)
            try:
                write_text(progress, str(first + count))
            except OSError as error:
                raise not_written(progress, error) from error
            on_progress(first + count, total)


def _rows_done(progress: Path) -> int:
    """Rows that are certainly there. A file with anything but their number was never finished, and says nothing."""
    try:
        text = progress.read_text("ascii")
    except (FileNotFoundError, UnicodeDecodeError):
        return 0
    return int(text) if text.isdecimal() else 0


class PictureStore:
    """`count` RGB pictures of one size in one mapped file."""

    def __init__(self, path: Path, count: int, size: tuple[int, int], shown: Description | None = None) -> None:
        """Open the file, or create it empty: also where it was made for another count or size.

        `size` is (width, height) in pixels. What is `shown` is described beside the file; without it nothing is
        compared. Raises `InvalidSettings` if the file was prepared for something else, `OutputFailed`.
        """
        self.path, self.count, self.size = path, count, size
        self._progress = path.with_suffix(".done")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if shown is not None:
                refuse_other_data(path.with_suffix(".json"), {**shown, "count": count, "size_px": size})
            self._pixels = map_rows(path, (count, size[1], size[0], 3), np.uint8, self._progress)
            if shown is not None:
                describe_new(path.with_suffix(".json"), {**shown, "count": count, "size_px": size}, self._progress)
        except OSError as error:
            raise not_written(path, error) from error

    def fill(self, render: Render, chunk: int, on_progress: Callable[[int, int], None], workers: int = 1) -> None:
        """Render what is missing; goes on after an interruption."""
        work = Work(partial(_array, render), self._write, chunk, workers)
        fill_missing(self._progress, self.count, work, on_progress)

    def _write(self, rows: slice, pictures: np.ndarray) -> None:
        self._pixels[rows] = pictures

    def pixels(self, indices: Tensor) -> Tensor:
        """uint8 (B, H, W, 3)."""
        return torch.from_numpy(self._pixels[indices.numpy()])

    def images(self, indices: Tensor) -> Tensor:
        """(B, 3, H, W) float32 in [-1, 1]."""
        return self.pixels(indices).permute(0, 3, 1, 2).float() / 127.5 - 1


def _array(render: Render, first: int, count: int) -> np.ndarray:
    """Not as a tensor, which would come out of another process as shared memory."""
    return render(first, count).numpy()
