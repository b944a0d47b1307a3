"""One small model a session; a test that damages it gets a copy."""

import shutil
from pathlib import Path

import pytest

from licht.checkpoint.detect import Layout
from tests.support import models


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A klein model in the diffusers layout."""
    return models.write_folder(tmp_path_factory.mktemp("tiny") / "tiny", models.Recipe())


@pytest.fixture(scope="session")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights under official names."""
    made = models.Recipe(layout=Layout.OFFICIAL)
    return models.write_folder(tmp_path_factory.mktemp("official") / "tiny", made)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A copy of `tiny` to damage."""
    return Path(shutil.copytree(tiny, tmp_path / "tiny"))


@pytest.fixture
def official_copy(official: Path, tmp_path: Path) -> Path:
    """A copy of `official` to damage."""
    return Path(shutil.copytree(official, tmp_path / "official"))
