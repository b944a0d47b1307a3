import json
import math
from pathlib import Path

import pytest

from licht.cli.main import run as command
from licht.core.errors import InvalidSettings
from licht.recipes import RECIPES
from licht.training.checks import REFERENCES, check
from licht.training.config import Source, recipe_from_json
from licht.world.tasks import TASK_KINDS, TaskKind, sample_task


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
        (("optim", "steps"), "many", r"recipe.optim.steps is 'many'; expected a whole number"),
        (("optim", "steps"), True, r"recipe.optim.steps is True; expected a whole number"),
        (("optim", "betas"), [0.9], r"recipe.optim.betas is \[0.9\]"),
        (("task",), "dream", r"recipe.task is 'dream'; expected one of autoencoder, flow"),
        (("data", "streams"), [{"name": "x"}], r"recipe.data.streams\[0\] lacks source, kinds, rows, weight; add"),
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


STREAM: dict[str, object] = {
    "name": "own",
    "source": "picture",
    "kinds": ["one"],
    "rows": 4,
    "weight": 1.0,
    "size_px": [64, 64],
    "references": 0,
    "reference_px": 64,
    "captions": 2,
    "folder": None,
}
WRONG: list[tuple[str, object, str]] = [
    ("optim.clip", None, "optim.clip is None; expected a number"),
    ("optim.clip", "a", "optim.clip is 'a'; expected a number"),
    ("optim.clip", 0, "optim.clip is 0.0; expected more than 0"),
    ("optim.betas", 5, "optim.betas is 5; expected a list of 2, each of it a number"),
    ("optim.betas", [0.9, 1.0], "optim.betas[1] is 1.0; expected from 0 to less than 1"),
    ("data.streams", None, "data.streams is None; expected a list, each of it an object with name, source"),
    ("data.streams", "[{", "data.streams is '[{'; expected a list, each of it an object with name, source"),
    ("flow.shift", [1], "flow.shift is [1]; expected a number"),
    ("name", None, "name is None; expected text"),
    ("optim.adamw_lr", math.nan, "optim.adamw_lr is nan; expected a number"),
    ("optim.muon_lr", math.inf, "optim.muon_lr is inf; expected a number"),
    ("optim.muon_lr", 10**400, "expected a number"),
    ("optim.batch", 0, "optim.batch is 0; expected at least 1"),
    ("optim.steps", 0, "optim.steps is 0; expected at least 1"),
    ("optim.steps", 1e3, "optim.steps is 1000.0; expected a whole number"),
    ("autoencoder.l1", -0.5, "autoencoder.l1 is -0.5; expected at least 0"),
    ("optim.ema", 2, "optim.ema is 2.0; expected from 0 to 1"),
    ("networks.heads", 5, "networks.hidden_size is 128; expected a multiple of networks.heads, 5"),
    ("networks.text_layers", [9], "networks.text_layers is (9,); expected layers from 1 to"),
    ("data.streams", [], "data.streams is (); expected at least one stream"),
    ("data.streams", [STREAM, STREAM], "data.streams is 'own'; expected a name of its own"),
    ("data.streams", [{**STREAM, "weight": 0.0}], "expected a weight of more than 0 in some stream"),
    *(
        ("data.streams", [{**STREAM, name: value}], f"data.streams[0].{message}")
        for name, value, message in (
            ("weight", -1, "weight is -1.0; expected at least 0"),
            ("rows", 0, "rows is 0; expected at least 1"),
            ("size_px", [64, 40], "size_px is 64x40; expected multiples of 16 px"),
            ("reference_px", 8, "reference_px is 8; expected multiples of 16 px"),
            ("name", "../x", "name is '../x'; expected a name that can be that of a folder"),
            ("kinds", [], "kinds is (); expected some of one, two"),
            ("kinds", ["recolor"], "kinds is 'recolor'; expected for source picture some of one, two"),
            ("source", "folder", "folder is None; expected the folder of pictures"),
            ("folder", "pictures", "folder is 'pictures'; expected null"),
            ("references", 1, "references is 1; expected 0: so many come with source picture, kind one"),
        )
    ),
    (
        "data.streams",
        [{**STREAM, "source": "edit", "kinds": ["recolor"], "references": 2}],
        "data.streams[0].references is 2; expected 1: so many come with source edit, kind recolor",
    ),
    (
        "data.streams",
        [{**STREAM, "source": "task", "kinds": ["subjects"], "references": 7}],
        "data.streams[0].references is 7; expected 2 to 4: so many come with source task, kind subjects",
    ),
]


@pytest.mark.parametrize(("field", "value", "message"), WRONG)
def test_values_that_mean_nothing_are_refused_in_a_file_and_in_set_alike(
    field: str, value: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads(RECIPES["nano_smoke"]().as_json())
    *parents, last = field.split(".")
    place = data
    for key in parents:
        place = place[key]
    place[last] = value
    (tmp_path / "mine.json").write_text(json.dumps(data))
    for arguments in (
        [str(tmp_path / "mine.json")],
        ["nano_smoke", "--set", f"{field}={json.dumps(value) if not isinstance(value, str) else value}"],
    ):
        assert command(["train", *arguments, "--show"]) == 2
        said = capsys.readouterr().err.strip()
        assert message in said
        assert len(said.splitlines()) == 1


def test_whole_streams_can_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["train", "nano_smoke", "--set", f"data.streams={json.dumps([STREAM])}", "--show"]) == 0
    (stream,) = recipe_from_json(capsys.readouterr().out).data.streams
    assert (stream.name, stream.source, stream.size_px) == ("own", Source.PICTURE, (64, 64))


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_mean_something(name: str) -> None:
    assert check(RECIPES[name]()) == RECIPES[name]()


@pytest.mark.parametrize("kind", TASK_KINDS)
def test_tasks_have_as_many_references_as_recipes_may_ask_for(kind: TaskKind) -> None:
    """A few of `mixed` have more, too few to fill a stream."""
    least, most = REFERENCES[kind]
    counts = {len(sample_task(kind, 0, index).references) for index in range(16)}
    assert least <= min(counts) <= most
    assert kind == "mixed" or max(counts) <= most


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
