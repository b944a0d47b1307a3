from collections.abc import Callable
from pathlib import Path

import pytest

from tests.architecture import import_rules, table
from tests.architecture.modules import Module

Build = Callable[[dict[str, str]], dict[str, Module]]


def test_layers_import_only_what_they_may(modules: dict[str, Module]) -> None:
    assert import_rules.layers_import_only_what_they_may(modules) == []


def test_recipes_take_only_configuration(modules: dict[str, Module]) -> None:
    assert import_rules.configuration_layers_take_no_behaviour(modules) == []


def test_no_import_cycles(modules: dict[str, Module]) -> None:
    assert import_rules.no_import_cycles(modules) == []


def test_torch_stays_out(modules: dict[str, Module]) -> None:
    assert import_rules.torch_stays_out(modules) == []


def test_core_uses_only_the_standard_library(modules: dict[str, Module]) -> None:
    assert import_rules.core_uses_only_the_standard_library(modules) == []


def test_reference_libraries_stay_out(modules: dict[str, Module]) -> None:
    assert import_rules.reference_libraries_stay_out(modules) == []


def test_torch_free_modules_import_without_torch(modules: dict[str, Module], root: Path) -> None:
    names = import_rules.must_import_without_torch(modules)
    assert {"licht", "licht.core.errors", "licht.model.variants"} <= set(names)
    assert import_rules.pulled_in_by_importing(root / "src", names, "torch") == []


def test_the_table_names_only_layers_that_it_has() -> None:
    for layer, may in table.MAY_IMPORT.items():
        for target in may:
            assert target == "*" or table.layer_of(target) is not None, (
                f"{layer} may import {target}, which is no layer"
            )


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("core/a.py", "from licht.model import b"),
        ("core/a.py", "import licht.model.b"),
        ("core/a.py", "def f() -> None:\n    from licht.model.b import x\n"),
        ("core/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from licht.model.b import x\n"),
        ("core/a.py", "from ..model import b"),
        ("core/a.py", "import importlib\nimportlib.import_module('licht.model.b')"),
        ("core/a.py", "from licht import load"),
        ("plan/a.py", "from licht.model import b"),
        ("plan/a.py", "from licht.model import VARIANTS"),
        ("engine/a.py", "from licht.safety import policy"),
        ("sampling/a.py", "from licht.model import b"),
        ("training/a.py", "from licht.evaluation import sheets"),
        ("evaluation/a.py", "from licht.training import lora"),
        ("service/api/a.py", "from licht.generate import generate"),
        ("service/api/a.py", "from licht.safety import image_filter"),
        ("service/queue/a.py", "from licht.service import storage"),
        ("studio/a.py", "from licht.core import sizes"),
        ("cli/a.py", "from licht.model import b"),
        ("__init__.py", "from licht.generate import load"),
        ("helpers.py", ""),
    ],
)
def test_a_forbidden_import_is_seen(package: Build, path: str, text: str) -> None:
    modules = package({"model/__init__.py": "", "model/b.py": "x = 1", "service/storage.py": "", path: text})
    assert len(import_rules.layers_import_only_what_they_may(modules)) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("core/a.py", "from licht import __version__"),
        ("core/a.py", "from licht.core import errors"),
        ("plan/a.py", "from licht.model.variants import VARIANTS"),
        ("plan/a.py", "from licht.model import variants"),
        ("service/api/a.py", "from licht.service import queue, storage"),
        ("cli/a.py", "def f() -> None:\n    from licht.generate import generate\n"),
        ("__init__.py", "def load() -> None:\n    from licht.generate import load\n"),
        ("recipes/a.py", "from licht.training.loop import Loop"),
    ],
)
def test_an_allowed_import_is_let_be(package: Build, path: str, text: str) -> None:
    modules = package(
        {"model/variants.py": "", "service/queue/__init__.py": "", "service/storage.py": "", path: text},
    )
    assert import_rules.layers_import_only_what_they_may(modules) == []


@pytest.mark.parametrize("text", ["from licht.training import loop", "from licht.training.loop import run, Loose"])
def test_behaviour_in_a_recipe_is_seen(package: Build, text: str) -> None:
    loop = "from dataclasses import dataclass\ndef run() -> None: ...\n@dataclass\nclass Loose: ...\n"
    assert import_rules.configuration_layers_take_no_behaviour(
        package({"training/loop.py": loop, "recipes/nano.py": text})
    )


def test_configuration_in_a_recipe_is_let_be(package: Build) -> None:
    loop = "from dataclasses import dataclass\nSTEPS = 4\n@dataclass(frozen=True)\nclass Loop: ...\n"
    modules = package({"training/loop.py": loop, "recipes/nano.py": "from licht.training.loop import STEPS, Loop"})
    assert import_rules.configuration_layers_take_no_behaviour(modules) == []


@pytest.mark.parametrize(
    "texts",
    [
        {"a.py": "from licht import b", "b.py": "import licht.a"},
        {"a.py": "from licht.b import x", "b.py": "from licht.c import y", "c.py": "import licht.a"},
        {"a/__init__.py": "from licht.a.b import x", "a/b.py": "from licht.a import y"},
        # The way to d.e leads through d itself, which comes back.
        {"a.py": "from licht.d.e import x", "d/__init__.py": "import licht.a", "d/e.py": ""},
    ],
)
def test_a_cycle_is_seen(package: Build, texts: dict[str, str]) -> None:
    assert len(import_rules.no_import_cycles(package(texts))) == 1


def test_what_is_no_cycle_is_let_be(package: Build) -> None:
    modules = package(
        {
            "a.py": "from licht import b",
            "b.py": "def f() -> None:\n    import licht.a\n",
            "c/__init__.py": "from licht.c.d import x",
            "c/d.py": "from licht.c import e",
            "c/e.py": "",
        }
    )
    assert import_rules.no_import_cycles(modules) == []


def test_torch_is_seen_in_a_function_of_a_torch_free_layer(package: Build) -> None:
    modules = package({"plan/a.py": "def f() -> None:\n    import torch.nn\n", "engine/a.py": "import torch"})
    assert import_rules.torch_stays_out(modules) == ["licht.plan.a:2 imports torch.nn"]


def test_an_installed_library_is_seen_in_core(package: Build) -> None:
    modules = package({"core/a.py": "import json\nimport pydantic\nfrom numpy import array\n"})
    assert import_rules.core_uses_only_the_standard_library(modules) == ["licht.core.a:3 imports numpy"]


def test_a_reference_library_is_seen(package: Build) -> None:
    lazily = "def f() -> None:\n    import transformers\n"
    modules = package(
        {
            "engine/text.py": lazily,
            "upsample/local.py": lazily,
            "evaluation/golden.py": "from diffusers import Flux2Pipeline\n" + lazily,
        }
    )
    assert import_rules.reference_libraries_stay_out(modules) == [
        "licht.engine.text:2 imports transformers",
        "licht.evaluation.golden:1 imports diffusers",
    ]


def test_a_library_that_is_pulled_in_is_seen(package: Build, tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text("", encoding="utf-8")
    modules = package(
        {"core/a.py": "", "core/b.py": "from licht.model import c", "core/z.py": "", "model/c.py": "import heavy"}
    )
    names = import_rules.must_import_without_torch(modules)
    assert names == ["licht", "licht.core.a", "licht.core.b", "licht.core.z"]
    assert import_rules.pulled_in_by_importing(tmp_path, names, "heavy") == ["importing licht.core.b imports heavy"]
    assert import_rules.pulled_in_by_importing(tmp_path, names[:2], "heavy") == []


def test_a_module_that_cannot_be_imported_is_seen(package: Build, tmp_path: Path) -> None:
    package({"core/a.py": "raise RuntimeError('broken')"})
    assert import_rules.pulled_in_by_importing(tmp_path, ["licht.core.a"], "torch") == ["RuntimeError: broken"]
