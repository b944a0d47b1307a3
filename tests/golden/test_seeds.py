"""One seed, one picture: alone, among others, in any batch, and as the reference draws noise."""

from collections.abc import Sequence

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

from licht.core.request import ImageRequest, ImageResult, Picture, Reference
from licht.core.sizes import Size
from licht.engine.engine import Choice, Engine
from licht.evaluation.measured import ONE_LEVEL, largest_pixel_difference, sample_picture
from licht.sampling.noise import initial_noise, tokens_to_grid
from tests.golden.sections import KINDS, Models

SEEDS = (11, 12, 13, 14, 15)


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63 - 1])
@pytest.mark.parametrize("grid", [(4, 4), (5, 7), (64, 64)])
def test_noise_is_that_of_the_reference_on_a_processor(seed: int, grid: tuple[int, int]) -> None:
    theirs = randn_tensor((1, 128, *grid), generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32)
    assert torch.equal(tokens_to_grid(initial_noise(seed, grid, 128), grid), theirs)


def _draw(engine: Engine, seeds: Sequence[int], references: int) -> dict[int, Picture]:
    pictures = tuple(Reference(sample_picture(Size(64, 80), n)) for n in range(references))
    request = ImageRequest("a small matte blue cube", tuple(seeds), pictures, Size(64, 80), steps=2)
    return {event.seed: event.picture for event in engine.run(request) if isinstance(event, ImageResult)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_picture_alone_and_in_any_batch(kind: str, built: Models) -> None:
    engine = Engine(built.files(kind), Choice("cpu", "float32"), batch_size=1)
    alone = {seed: _draw(engine, [seed], 1)[seed] for seed in SEEDS}
    assert _draw(engine, SEEDS, 1) == alone

    for batch_size in (2, 4):
        engine.batch_size = batch_size
        together = _draw(engine, SEEDS, 1)
        assert list(together) == list(SEEDS)
        assert max(largest_pixel_difference(together[seed], alone[seed]) for seed in SEEDS) <= ONE_LEVEL
    assert len({picture.rgb for picture in alone.values()}) == len(SEEDS)
    assert largest_pixel_difference(alone[11], alone[12]) > 0.1
