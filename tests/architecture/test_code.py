from collections.abc import Callable
from pathlib import Path

import pytest

from tests.architecture import code_rules, table
from tests.architecture.modules import Module

Build = Callable[[dict[str, str]], dict[str, Module]]


def test_files_and_functions_are_short(files: list[Path]) -> None:
    sources = [path for path in files if path.suffix == ".py"]
    assert code_rules.files_and_functions_are_short(sources) == []


def test_pictures_leave_through_the_door(modules: dict[str, Module]) -> None:
    assert code_rules.pictures_leave_through_the_door(modules) == []


def test_no_state_in_modules(modules: dict[str, Module]) -> None:
    assert code_rules.no_state_in_modules(modules) == []


def test_a_long_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text("x = 1\n" * table.MAX_FILE_LINES, encoding="utf-8")
    assert code_rules.files_and_functions_are_short([path]) == []
    path.write_text("x = 1\n" * (table.MAX_FILE_LINES + 1), encoding="utf-8")
    assert len(code_rules.files_and_functions_are_short([path])) == 1


@pytest.mark.parametrize("start", ["def f():\n", "async def f():\n", "class C:\n  def f(self):\n"])
def test_a_long_function_is_seen(tmp_path: Path, start: str) -> None:
    path = tmp_path / "long.py"
    path.write_text(start + "    x = 1\n" * (table.MAX_FUNCTION_LINES - 1), encoding="utf-8")
    assert code_rules.files_and_functions_are_short([path]) == []
    path.write_text(start + "    x = 1\n" * table.MAX_FUNCTION_LINES, encoding="utf-8")
    assert len(code_rules.files_and_functions_are_short([path])) == 1


@pytest.mark.parametrize(
    "text",
    [
        "picture.save('a.png')",
        "Image.open('a').save('b')",
        "from PIL import Image\nImage.Image.save(x, 'b')",
        "write = picture.save",
        "def f(result):\n    result.image.save('a.png')\n",
        "from torchvision.utils import save_image\nsave_image(x)",
        "imageio.imwrite('a.png', x)",
    ],
)
def test_a_picture_beside_the_door_is_seen(package: Build, text: str) -> None:
    assert len(code_rules.pictures_leave_through_the_door(package({"engine/a.py": text}))) == 1


@pytest.mark.parametrize("path", ["safety/policy.py", "evaluation/sheets.py", "world/renderer.py"])
def test_the_door_may_write_pictures(package: Build, path: str) -> None:
    assert code_rules.pictures_leave_through_the_door(package({path: "picture.save('a.png')"})) == []


def test_saving_what_is_no_picture_is_let_be(package: Build) -> None:
    text = "from licht.checkpoint import save\nsave.save(model)\nsave(model)\ndef save(x): ...\n"
    assert code_rules.pictures_leave_through_the_door(package({"checkpoint/a.py": text})) == []


@pytest.mark.parametrize(
    "text",
    [
        "cache = {}",
        "cache: dict[str, int] = {}",
        "names = ['a']",
        "_seen = set()",
        "_CACHE = {}",
        "TABLE: dict[str, int] = dict()",
        "by_name = {name: 1 for name in 'ab'}",
        "import collections\nqueue = collections.deque([1])",
        "if True:\n    cache = {}",
        "def f():\n    global cache\n    cache = 1",
    ],
)
def test_state_is_seen(package: Build, text: str) -> None:
    assert len(code_rules.no_state_in_modules(package({"core/a.py": text}))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "NAMES = ['a']",
        "_TABLE: dict[str, int] = {'a': 1}",
        "SIZES = {name: 1 for name in 'ab'}",
        "__all__ = ['a']",
        "limit = 3",
        "names = ('a',)",
        "def f():\n    cache = {}\n    return cache",
        "class C:\n    FIELDS = ['a']",
    ],
)
def test_constants_and_locals_are_let_be(package: Build, text: str) -> None:
    assert code_rules.no_state_in_modules(package({"core/a.py": text})) == []
