"""Work in several processes: in order, with their errors, and over when nobody takes it."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from licht.core.errors import InvalidSettings, OutOfMemory
from licht.recipes.nano import nano_smoke
from licht.training.config import Source, Stream
from licht.training.pictures import PictureStore
from licht.training.rendered import RenderedRows, mixed_pictures
from licht.training.semantic import mixed_labels
from licht.training.store import StreamStore
from licht.training.tokenizer import CaptionEncoder, train_tokenizer
from licht.training.trained import trained_autoencoder
from licht.training.workers import made_in_order, usable_cores
from tests.support.processes import PYTHONPATH
from tests.training.runs import CAPTIONS, autoencoder_run

pytestmark = pytest.mark.slow
SPANS = [(first, 2) for first in range(0, 64, 2)]
STREAM = Stream(
    "edits", Source.EDIT, ("recolor", "move"), rows=20, weight=1.0, size_px=(64, 64), references=1, reference_px=64
)


def who(first: int, count: int) -> tuple[int, int, int]:
    return first, count, os.getpid()


def wrong(first: int, count: int) -> int:
    if first == 40:
        raise InvalidSettings("no row 40", field="data.streams")
    return count


def ends(first: int, count: int) -> int:
    if first == 40:
        os.kill(os.getpid(), signal.SIGKILL)
    return count


def numbered(first: int, count: int) -> Tensor:
    return torch.arange(first, first + count, dtype=torch.uint8)[:, None, None, None].expand(count, 16, 16, 3)


def test_it_comes_back_in_order_from_several_processes() -> None:
    made = list(made_in_order(who, SPANS, 2))
    assert [one[:2] for one in made] == SPANS
    workers = {one[2] for one in made}
    assert os.getpid() not in workers
    assert 1 <= len(workers) <= 2


@pytest.mark.parametrize(("spans", "workers"), [(SPANS, 1), (SPANS[:15], 2)])
def test_little_work_is_done_here(spans: list[tuple[int, int]], workers: int) -> None:
    assert {one[2] for one in made_in_order(who, spans, workers)} == {os.getpid()}


def test_an_error_of_a_worker_is_raised_here() -> None:
    with pytest.raises(InvalidSettings, match="no row 40") as caught:
        list(made_in_order(wrong, SPANS, 2))
    assert caught.value.field == "data.streams"


def test_a_worker_that_is_killed_is_an_error() -> None:
    with pytest.raises(OutOfMemory, match="run again"):
        list(made_in_order(ends, SPANS, 2))


def test_pictures_of_several_processes_are_those_of_one(tmp_path: Path) -> None:
    told: list[int] = []
    store = PictureStore(tmp_path / "pictures.bin", 40, (16, 16))
    store.fill(numbered, 2, lambda done, total: told.append(done), workers=2)
    assert told == list(range(2, 41, 2))
    assert torch.equal(store.pixels(torch.arange(40))[:, 0, 0, 0], torch.arange(40, dtype=torch.uint8))


def test_rows_of_several_processes_are_those_of_one(tmp_path: Path) -> None:
    """All that prepares data can be sent to a process: networks, tokenizer, scenes."""
    autoencoder_run(tmp_path / "vae")
    encoder = CaptionEncoder(train_tokenizer(CAPTIONS, 300), nano_smoke().networks.text_length)
    rows = RenderedRows(trained_autoencoder(tmp_path / "vae"), encoder, "train", 3)
    found = []
    for workers in (1, 2):
        store = StreamStore(tmp_path / str(workers), STREAM, rows.autoencoder.config.token_channels, encoder.length)
        store.fill(rows, 1, lambda *_: None, workers)
        found.append(store.rows(torch.arange(STREAM.rows * STREAM.captions)))
    one, two = found
    assert one.references_BRC is not None
    assert two.references_BRC is not None
    assert torch.equal(one.ids_BT, two.ids_BT)
    # one thread and several may add in another order
    torch.testing.assert_close(one.x0_BLC, two.x0_BLC, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(one.references_BRC, two.references_BRC, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("made", [mixed_pictures(3), mixed_labels(3)])
def test_what_autoencoders_learn_from_is_made_alike(made: partial[Tensor]) -> None:
    here = [one.numpy() for one in (made(first, 1) for first in range(16))]
    there = list(made_in_order(made, [(first, 1) for first in range(16)], 2))
    assert all(np.array_equal(one, other) for one, other in zip(here, there, strict=True))


PARENT = """
import sys
from tests.training.test_workers import who, SPANS
from licht.training.workers import made_in_order
if __name__ == "__main__":
    made = made_in_order(who, SPANS, 2)
    print(next(made)[2], next(made)[2], flush=True)
    sys.stdin.read()
"""


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    workers = {int(number) for number in parent.stdout.readline().split()}
    assert workers
    parent.kill()
    parent.wait()
    until = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]


def test_cores_are_counted() -> None:
    assert 1 <= usable_cores() <= 16
