import json
from pathlib import Path

import pytest

from tests.cli.conftest import Licht


@pytest.fixture
def settings(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = here / "licht.toml"
    monkeypatch.setenv("LICHT_SETTINGS", str(path))
    monkeypatch.setenv("LICHT_MODELS", "to be put back")  # what the tool sets itself is undone after the test
    monkeypatch.delenv("LICHT_MODELS")
    return path


def test_what_somebody_prefers_is_the_default_and_the_command_line_counts_more(
    licht: Licht, settings: Path, tiny: Path, here: Path
) -> None:
    settings.write_text(f'[generate]\nmodel = "{tiny}"\npolicy = "off"\nnum = 2\nkeep-prompt = true\nsteps = 1\n')
    report = json.loads(licht("generate", "x", "--json", "--device", "cpu").out)
    assert (report["model"], len(report["images"]), report["steps"]) == ("tiny", 2, 1)
    assert json.loads(licht("inspect", report["images"][0]["path"], "--json").out)["recipe"]["prompt"] == "x"
    assert len(json.loads(licht("generate", "x", "--num", "1", "--json", "--device", "cpu").out)["images"]) == 1


def test_the_models_folder_and_verbs_below_verbs(licht: Licht, settings: Path, here: Path) -> None:
    settings.write_text('models_folder = "shelf"\n[models]\njson = true\n[prompt.show]\nstyle = "json"\n')
    assert json.loads(licht("models").out)["folder"] == "shelf"
    assert licht("prompt", "show", '{"scene":"a"}').out == '{"scene": "a"}\n'


@pytest.mark.parametrize(
    ("text", "message", "field"),
    [
        ("[generate", "licht.toml is not TOML: ", None),
        ("\xff", "licht.toml is not TOML: ", None),
        ("[draw]\nsteps = 1\n", "licht.toml: draw is no verb; see licht --help", "draw"),
        ("[generate]\nsetps = 1\n", "generate.setps is no option --setps of licht generate", "generate.setps"),
        ("[generate]\nsteps = {a = 1}\n", "generate.steps is no option --steps", "generate.steps"),
        ("models_folder = 3\n", "models_folder must be a text", "models_folder"),
        ("[generate]\nsteps = 'many'\n", "Invalid value for '--steps'", "steps"),
        ("[generate]\nsteps = 99\n", "99 steps asked for; use 1 to 50", "steps"),
    ],
)
def test_a_mistake_in_the_settings_is_one_line(
    licht: Licht, settings: Path, text: str, message: str, field: str | None
) -> None:
    settings.write_bytes(text.encode("latin-1"))
    outcome = licht("generate", "x", "--json")
    assert outcome.code == 2
    assert message in outcome.error
    assert json.loads(outcome.out)["error"]["field"] == field


def test_a_file_that_was_named_has_to_be_there(licht: Licht, settings: Path) -> None:
    assert "which is not there" in licht("--version").error
