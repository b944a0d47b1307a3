"""What a worker is put together from, as the settings say."""

from collections.abc import Sequence
from pathlib import Path

import pytest

import licht
from licht.cli import working
from licht.core.errors import InvalidSettings
from licht.core.request import Picture, Reference
from licht.engine.ranker import LikelihoodRanker
from licht.generate import Model
from licht.service.settings import Settings, load_settings
from licht.service.worker.writing import TurnByTurn
from licht.upsample.chat import ChatUpsampler
from licht.upsample.local import LocalUpsampler


class House:
    """A ranker of the operator's own."""

    name = "house"

    def score(self, prompt: str, pictures: Sequence[Picture], references: Sequence[Reference]) -> Sequence[float]:
        del prompt, references
        return [0.0 for _ in pictures]


def open_house(settings: Settings) -> House:
    del settings
    return House()


@pytest.fixture(scope="module")
def model() -> Model:
    return licht.load("nano", policy="off")


def told(**values: object) -> Settings:
    return load_settings(None, {"data": "d", **{name.replace("__", "."): value for name, value in values.items()}}, {})


def test_what_chooses_between_candidates(model: Model) -> None:
    assert isinstance(working._open_ranker(told(), model), LikelihoodRanker)
    assert working._open_ranker(told(worker__ranker="none"), model) is None
    own = working._open_ranker(told(worker__ranker="tests.service.test_working:open_house"), model)
    assert isinstance(own, House)
    with pytest.raises(InvalidSettings, match=r"worker\.ranker"):
        working._open_ranker(told(worker__ranker="nowhere:open"), model)


def test_who_writes_prompts_out(model: Model, tmp_path: Path) -> None:
    assert working._open_upsampler(told(), model) is None
    assert isinstance(working._open_upsampler(told(upsampling__url="http://x/v1"), model), ChatUpsampler)
    encoder = tmp_path / "dev" / "text_encoder"
    encoder.mkdir(parents=True)
    (encoder / "config.json").write_text('{"model_type": "mistral3"}', encoding="utf-8")
    folder = str(tmp_path / "dev")
    assert isinstance(working._open_upsampler(told(upsampling__local=folder), model), TurnByTurn)
    kept = working._open_upsampler(told(upsampling__local=folder, upsampling__keep=True), model)
    assert isinstance(kept, LocalUpsampler)


def test_only_devs_own_language_model_can_write(model: Model) -> None:
    with pytest.raises(InvalidSettings, match="only dev's is") as refused:
        working._open_upsampler(told(upsampling__local="own"), model)
    assert refused.value.field == "upsampling.local"
