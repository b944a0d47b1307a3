"""One small engine of every kind a session; its networks stay loaded."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from licht.checkpoint.folder import ModelFiles, read_folder
from licht.engine.engine import Choice, Engine
from licht.model.variants import Kind
from tests.support import models

Fresh = Callable[..., Engine]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Kind, ModelFiles]:
    """A model of every kind, trained (so it says) at 64x64 and 128x64 px."""
    folder = tmp_path_factory.mktemp("models")
    return {
        kind: read_folder(
            models.write_folder(
                folder / f"tiny-{kind}",
                models.recipe(kind, trained_sizes=[[64, 64], [128, 64]], max_references=3),
            )
        )
        for kind in Kind
    }


@pytest.fixture(scope="session")
def engines(files: Mapping[Kind, ModelFiles]) -> Mapping[Kind, Engine]:
    return {kind: Engine(found, Choice("cpu", "float32")) for kind, found in files.items()}


@pytest.fixture
def fresh(files: Mapping[Kind, ModelFiles]) -> Fresh:
    """Makes an engine that has loaded nothing yet."""

    def build(kind: Kind = Kind.KLEIN, batch_size: int | None = None) -> Engine:
        return Engine(files[kind], Choice("cpu", "float32"), batch_size)

    return build


@pytest.fixture
def tokenizers(tmp_path: Path) -> Mapping[Kind, Path]:
    """A tokenizer folder for Mistral (dev) and one for Qwen3 (klein), to change."""
    return {
        Kind.DEV: models.write_tokenizer(tmp_path / "mistral", models.MISTRAL.tower),
        Kind.KLEIN: models.write_tokenizer(tmp_path / "qwen", models.QWEN.tower),
    }
