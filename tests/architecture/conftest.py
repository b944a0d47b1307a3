"""The real repository, read once, and synthetic ones that break a rule on purpose."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.architecture.modules import Module, read_modules
from tests.architecture.tree_rules import repository_files

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def modules() -> dict[str, Module]:
    found = read_modules(ROOT / "src")
    assert "licht" in found
    assert "core.errors" in found
    return found


@pytest.fixture(scope="session")
def files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout: the rule is about what is committed")
    found = repository_files(ROOT)
    assert ROOT / "pyproject.toml" in found
    return found


@pytest.fixture
def package(tmp_path: Path) -> Callable[..., dict[str, Module]]:
    """Builds a package from file names and their texts; packages need no `__init__.py` of their own."""

    def build(texts: Mapping[str, str]) -> dict[str, Module]:
        for name, text in {"__init__.py": "", **texts}.items():
            path = tmp_path / "licht" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return read_modules(tmp_path)

    return build
