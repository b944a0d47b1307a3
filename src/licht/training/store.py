"""Latents, references and captions, prepared once and mapped: one stream per size of picture and of references."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from licht.training.config import Stream
from licht.training.files import Description, describe_new, not_written, refuse_other_data
from licht.training.pictures import Work, fill_missing, map_rows


@dataclass(frozen=True, slots=True)
class Rows:
    """A few rows of a stream."""

    x0_BLC: Tensor
    references_BRC: Tensor | None
    ids_BT: Tensor


Prepared = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Latents (n, L, C), references (n, R, C), ids (n, captions, T)."""
Prepare = Callable[[Stream, int, int], Prepared]
"""(stream, first row, count) -> those rows."""


class StreamStore:
    """One stream on disk: three mapped arrays that are filled once."""

    def __init__(
        self, folder: Path, stream: Stream, channels: int, text_length: int, source: Description | None = None
    ) -> None:
        """Open the arrays, or create them; `source` describes what else the rows depend on.

        Raises `InvalidSettings` if the folder holds another stream, `OutputFailed`.
        """
        self.stream, self.folder = stream, folder / stream.name
        self._progress = self.folder / "done"
        description = {**asdict(stream), "channels": channels, "text_length": text_length, **(source or {})}
        del description["weight"]
        tokens = stream.grid[0] * stream.grid[1]
        reference_tokens = stream.references * stream.reference_grid[0] * stream.reference_grid[1]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            known = self.folder / "stream.json"
            repeating = len(set(stream.kinds)) < len(stream.kinds)
            refuse_other_data(known, description, needed=["repeats"] if "repeats" in description and repeating else ())
            self._latents = map_rows(self._at("latents"), (stream.rows, tokens, channels), np.float16, self._progress)
            shown = (stream.rows, max(reference_tokens, 1), channels)
            self._references = map_rows(self._at("references"), shown, np.float16, self._progress)
            said = (stream.rows, stream.captions, text_length)
            self._ids = map_rows(self._at("ids"), said, np.uint16, self._progress)
            describe_new(known, description, self._progress)
        except OSError as error:
            raise not_written(self.folder, error) from error

    def fill(
        self, prepare: Prepare, chunk: int, on_progress: Callable[[str, int, int], None], workers: int = 1
    ) -> None:
        """Prepare the rows that are missing; goes on after an interruption."""
        work = Work(partial(prepare, self.stream), self._write, chunk, workers)
        fill_missing(self._progress, self.stream.rows, work, partial(on_progress, self.stream.name))

    def _write(self, rows: slice, made: Prepared) -> None:
        latents, references, ids = made
        self._latents[rows] = latents
        if self.stream.references:
            self._references[rows] = references
        self._ids[rows] = ids

    def rows(self, captions: Tensor) -> Rows:
        """The rows of the captions numbered `captions` (B,): caption c is phrasing c % captions of row c // captions."""
        at, phrasings = captions.numpy() // self.stream.captions, captions.numpy() % self.stream.captions
        references = torch.from_numpy(self._references[at]).float() if self.stream.references else None
        ids = self._ids[at, phrasings].astype(np.int64)
        return Rows(torch.from_numpy(self._latents[at]).float(), references, torch.from_numpy(ids))

    def caption_lengths(self, pad_id: int) -> Tensor:
        """Tokens of every caption, (rows x captions,), without the padding behind them."""
        real = self._ids.reshape(-1, self._ids.shape[2]) != pad_id
        return torch.from_numpy(real.sum(1))

    def _at(self, name: str) -> Path:
        return self.folder / f"{name}.bin"
