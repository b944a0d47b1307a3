"""The command line, run in this process with a small model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from licht.cli.main import run
from licht.model.variants import Kind
from tests.support import models


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line on stderr, without its mark; anything else there fails."""
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1
        assert self.err.startswith("error: ")
        return self.err.removeprefix("error: ").strip()


Licht = Callable[..., Outcome]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A klein model that is trained, so it says, at 64x64 and 128x64 px."""
    made = models.recipe(Kind.KLEIN, trained_sizes=[[64, 64], [128, 64]], max_references=3)
    return models.write_folder(tmp_path_factory.mktemp("models") / "tiny", made)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def licht(here: Path, capsys: pytest.CaptureFixture[str]) -> Licht:
    """Runs `licht ARGUMENTS` in `here`."""

    def command(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return command


@pytest.fixture
def generate(licht: Licht, tiny: Path) -> Licht:
    """Runs `licht generate ARGUMENTS` with the small model and bare pixels, unless another model is named."""

    def command(*arguments: str | Path) -> Outcome:
        given = () if "--model" in arguments else ("--model", tiny)
        bare = () if "--policy" in arguments else ("--policy", "off")
        return licht("generate", *arguments, *given, *bare, "--device", "cpu")

    return command
