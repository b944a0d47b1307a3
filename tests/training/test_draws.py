"""The random numbers of a step."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from licht.recipes.nano import nano_base
from licht.training.config import DataConfig, Recipe, Source, Stream, TimeShape
from licht.training.draws import Purpose, generator_of, turn
from licht.training.flow import FlowTask
from licht.training.loop import Rank
from licht.training.objectives import draw_times
from licht.training.store import StreamStore
from tests.training.runs import TINY
from tests.training.test_distil import ENCODER, nothing

RECIPE = nano_base()


def first(recipe: Recipe, step: int, purpose: Purpose = Purpose.BATCH) -> float:
    return float(torch.rand((), generator=generator_of(recipe, step, purpose)))


def test_a_step_has_its_numbers_and_no_other_has_them() -> None:
    assert first(RECIPE, 3) == first(RECIPE, 3)
    others = [
        first(RECIPE, 4),
        first(RECIPE, 3, Purpose.DISTILLING),
        first(RECIPE, 3, Purpose.BESIDE),
        first(replace(RECIPE, seed=1), 3),
        first(replace(RECIPE, start_from="runs/base1"), 3),
        first(replace(RECIPE, start_from="runs/base2"), 3),
    ]
    assert len({first(RECIPE, 3), *others}) == 7


def test_turns_are_evenly_spread() -> None:
    turns = np.sort([turn(RECIPE, step) for step in range(100)])
    assert turns[0] >= 0
    assert turns[-1] < 1
    assert np.diff(turns).max() < 0.03  # a hundred independent numbers leave a gap of some 0.05
    assert turn(RECIPE, 0) != turn(replace(RECIPE, seed=1), 0)


def rows(stream: Stream, begin: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shape = (count, 16, 32)
    return np.zeros(shape, np.float16), np.zeros(shape, np.float16), ENCODER(["a cube"] * count)[0][:, None]


def test_every_stream_gets_its_share_of_any_few_steps(tmp_path: Path) -> None:
    weights = {"half": 0.5, "never": 0.0, "most_of_the_rest": 0.4, "rare": 0.1}
    streams = tuple(
        Stream(name, Source.PICTURE, ("one",), 8, weight, size_px=(64, 64), captions=1)
        for name, weight in weights.items()
    )
    stores = [StreamStore(tmp_path, stream, 32, TINY.text_length) for stream in streams]
    for store in stores:
        store.fill(rows, 8, lambda *_: None)
    recipe = replace(RECIPE, networks=TINY, data=DataConfig(streams=streams))
    task = FlowTask(recipe, stores, ENCODER, torch.device("cpu"), nothing)
    taken = [task.pick(step).store.stream.name for step in range(200)]
    for begin in range(0, 200, 40):
        for name, weight in weights.items():
            assert abs(taken[begin : begin + 40].count(name) - 40 * weight) <= 2, name
    assert task.pick(7).store is task.pick(7).store


def test_times_of_a_batch_are_one_in_each_part_of_the_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in TimeShape:
        batches = torch.stack([draw_times(16, shape, 2.2, generator) for _ in range(50)])
        middle = batches.flatten().median()
        assert ((batches < middle).sum(1) - 8).abs().max() <= 1
        assert not torch.equal(batches.argsort(1)[0], batches.argsort(1)[1])
        # a rank that takes every other row sees all of them too
        assert (batches[:, Rank(0, 2).rows] < middle).float().mean() > 0.4
