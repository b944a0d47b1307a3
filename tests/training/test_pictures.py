"""Prepared data on disk: what is made anew is filled anew, and what is kept says what it is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from licht.training.config import Source, Stream
from licht.training.pictures import PictureStore
from licht.training.store import StreamStore

SIZE = (16, 16)


def bright(first: int, count: int) -> Tensor:
    return torch.full((count, *SIZE, 3), 200 + first, dtype=torch.uint8)


def quiet(*told: object) -> None:
    assert told


@pytest.mark.parametrize("lost", ["removed", "shortened"])
def test_pictures_are_rendered_again_where_their_file_was_made_anew(tmp_path: Path, lost: str) -> None:
    path = tmp_path / "pictures.bin"
    PictureStore(path, 4, SIZE).fill(bright, 2, quiet)
    if lost == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    store = PictureStore(path, 4, SIZE)
    store.fill(bright, 2, quiet)
    assert store.pixels(torch.arange(4)).min() == 200


@pytest.mark.parametrize("lost", ["latents", "references", "ids"])
def test_rows_are_prepared_again_where_one_of_their_files_is_gone(tmp_path: Path, lost: str) -> None:
    stream = Stream("pictures", Source.PICTURE, ("one",), rows=4, weight=1.0, size_px=(32, 32), captions=1)
    calls: list[int] = []

    def prepare(stream: Stream, first: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        calls.append(first)
        return np.ones((count, 4, 8)), np.ones((count, 1, 8)), np.ones((count, 1, 6))

    for _ in range(2):
        StreamStore(tmp_path, stream, 8, 6).fill(prepare, 2, quiet)
    assert calls == [0, 2]
    (tmp_path / "pictures" / f"{lost}.bin").unlink()
    store = StreamStore(tmp_path, stream, 8, 6)
    store.fill(prepare, 2, quiet)
    assert calls == [0, 2, 0, 2]
    assert store.rows(torch.arange(4)).x0_BLC.min() == 1
    assert store.rows(torch.arange(4)).ids_BT.min() == 1
