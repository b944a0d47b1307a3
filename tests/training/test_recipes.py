import json
from pathlib import Path

import pytest

from licht.cli.main import run as command
from licht.core.errors import InvalidSettings
from licht.recipes import RECIPES
from licht.training.config import recipe_from_json


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_come_back_from_json(name: str) -> None:
    recipe = RECIPES[name]()
    assert recipe_from_json(recipe.as_json()) == recipe
    assert recipe.name == name


def test_what_a_recipe_leaves_out_is_as_usual() -> None:
    recipe = RECIPES["nano_base"]()
    data = json.loads(recipe.as_json())
    del data["distil"], data["flow"]["self_flow"], data["data"]["broken"]
    assert recipe_from_json(json.dumps(data)) == recipe


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("optim", "momentum"), 0.9, r"recipe.optim.momentum is unknown; here there are steps, batch"),
        (("optim", "steps"), "many", r"recipe.optim.steps is 'many'; expected int"),
        (("optim", "steps"), True, r"recipe.optim.steps is True; expected int"),
        (("optim", "betas"), [0.9], r"recipe.optim.betas is \[0.9\]"),
        (("task",), "dream", r"recipe.task is 'dream'; expected Task"),
        (("data", "streams"), [{"name": "x"}], r"recipe.data.streams\[0\] lacks a field"),
        (("networks",), 5, r"recipe.networks is 5; expected an object"),
    ],
)
def test_a_wrong_recipe_is_refused_by_its_field(path: tuple[str, ...], value: object, message: str) -> None:
    data = json.loads(RECIPES["nano_smoke"]().as_json())
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(InvalidSettings, match=message):
        recipe_from_json(json.dumps(data))
    with pytest.raises(InvalidSettings, match="must be JSON"):
        recipe_from_json("{")


def test_recipes_are_shown_and_read_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["train", "nano_smoke", "--set", "optim.steps=7", "--show"]) == 0
    said = capsys.readouterr().out
    assert recipe_from_json(said).optim.steps == 7
    path = tmp_path / "mine.json"
    path.write_text(said)
    assert command(["train", str(path), "--show"]) == 0
    assert capsys.readouterr().out == said
    path.write_text(said.replace("clip", "clap"))
    assert command(["train", str(path), "--show"]) == 2
    assert "recipe.optim.clap is unknown" in capsys.readouterr().err
    assert command(["train", "nano_smok"]) == 2
    assert "name a JSON file, or one of nano_smoke" in capsys.readouterr().err
    assert command(["train", str(tmp_path)]) == 2
