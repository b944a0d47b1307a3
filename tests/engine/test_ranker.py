"""The model as a judge of its own pictures. How good a judge it is stands in docs/serving.md."""

import pytest
import torch

import licht
from licht.core.protocols import SteppedRanker
from licht.core.request import ImageRequest, ImageResult, Picture
from licht.core.sizes import Size
from licht.engine.engine import Engine
from licht.engine.likelihood import LEVELS, advantage
from licht.engine.ranker import LikelihoodRanker


@pytest.fixture(scope="module")
def engine() -> Engine:
    return licht.load("nano", policy="off").engine


@pytest.fixture(scope="module")
def pictures(engine: Engine) -> dict[str, Picture]:
    """What the model draws for two prompts that have nothing in common."""
    found = {}
    for prompt in ("a large red matte sphere on a white floor", "a small blue metal cube on a green floor"):
        request = ImageRequest(prompt, (5,), size=Size(128, 128), steps=8)
        found[prompt] = next(event.picture for event in engine.run(request) if isinstance(event, ImageResult))
    return found


def test_a_picture_fits_its_own_prompt_best(engine: Engine, pictures: dict[str, Picture]) -> None:
    ranker, shown = LikelihoodRanker(engine), list(pictures.values())
    first, second = (ranker.score(prompt, shown, ()) for prompt in pictures)
    assert first[0] > first[1]
    assert second[1] > second[0]
    # alone or among others, a picture is worth the same
    assert ranker.score(next(iter(pictures)), shown[:1], ())[0] == pytest.approx(first[0], abs=1e-4)


def test_it_can_be_stopped_after_every_look(engine: Engine, pictures: dict[str, Picture]) -> None:
    ranker, shown = LikelihoodRanker(engine), list(pictures.values())
    assert isinstance(ranker, SteppedRanker)
    parts = list(ranker.rank("a red sphere", shown, ()))
    assert parts == sorted(parts)
    assert (len([part for part in parts if part]), parts[-1]) == (len(LEVELS) * len(shown), 1.0)


def test_sizes_that_are_no_whole_tokens(engine: Engine) -> None:
    odd = Picture(75, 130, bytes([200, 10, 10]) * (75 * 130))
    assert len(LikelihoodRanker(engine).score("a red wall", [odd], ())) == 1


def test_what_an_advantage_is() -> None:
    clean, noise = torch.zeros(1, 4, 8), torch.ones(1, 4, 8)
    right, wrong = (lambda x, t: torch.ones_like(x)), (lambda x, t: torch.zeros_like(x))
    assert advantage(right, wrong, clean, noise, 0.5) == 1.0
    assert advantage(wrong, wrong, clean, noise, 0.5) == 0.0
