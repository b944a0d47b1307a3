"""A model of one's own pictures, from `licht train` over `licht export` to `licht eval`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from licht.cli.main import run as command
from licht.training.config import DataConfig, Source, Stream
from licht.training.folder import with_settled_rows
from licht.training.state import newest_checkpoint, read_recipe
from licht.training.tokenizer import save_tokenizer, train_tokenizer
from tests.training.runs import CAPTIONS, TINY, tiny_flow

COLORS = ("red", "blue", "green", "white")


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The folder of a run on four pictures, beside its recipe, its pictures and its data."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for color in COLORS:
        Image.new("RGB", (64, 64), color).save(pictures / f"{color}.png")
        (pictures / f"{color}.txt").write_text(f"a {color} picture")
    own = Stream("own", Source.FOLDER, (), 0, 1.0, size_px=(64, 64), captions=1, folder=str(pictures))
    wide = replace(own, name="wide", size_px=(128, 64))
    recipe = tiny_flow(tmp_path, steps=2)
    recipe = replace(recipe, data=DataConfig(streams=(own, wide)))
    (tmp_path / "recipe.json").write_text(recipe.as_json(), "utf-8")
    run = tmp_path / "run"
    save_tokenizer(train_tokenizer(CAPTIONS, TINY.vocab_size), run / "tokenizer")
    assert command(train(tmp_path, "--set", "data.broken=skip")) == 0
    return run


def train(folder: Path, *more: str) -> list[str]:
    place = ["--run", str(folder / "run"), "--data", str(folder / "data")]
    return ["train", str(folder / "recipe.json"), *place, "--policy", "off", *more]


def test_it_is_exported_and_measured_with_what_it_has_seen(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["export", str(trained), str(tmp_path / "model")]) == 0
    card = (tmp_path / "model" / "README.md").read_text("utf-8")
    assert "| data | 4 rows of folders of pictures |" in card
    assert "the pictures that it was shown" in card
    assert "rendered rows" not in card
    assert "license: unknown" in card
    # the stream that got no picture was left out
    assert json.loads((tmp_path / "model" / "licht.json").read_text("utf-8"))["trained_sizes"] == [[64, 64]]
    capsys.readouterr()
    assert command(["eval", "vae", "--model", str(trained), "--n", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "run"


def test_pictures_and_captions_that_changed_are_not_taken_for_those_that_were_prepared(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = train(tmp_path, "--set", "data.broken=skip")
    assert command(again) == 0
    (tmp_path / "pictures" / "red.txt").write_text("a crimson picture")
    capsys.readouterr()
    assert command(again) == 2
    assert "was prepared for something else (pictures:" in " ".join(capsys.readouterr().err.split())


def test_broken_pictures_are_refused_or_skipped_behind_the_filters_too(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (tmp_path / "pictures" / "red.png").read_bytes()
    for name, content in (("noise", b"no picture"), ("torn", whole[: len(whole) // 2])):
        (tmp_path / "pictures" / f"{name}.png").write_bytes(content)
        (tmp_path / "pictures" / f"{name}.txt").write_text("a red picture")
    filtered = [each for each in train(tmp_path) if each not in ("--policy", "off")]
    filtered[filtered.index("--run") + 1] = str(tmp_path / "other")
    save_tokenizer(train_tokenizer(CAPTIONS, TINY.vocab_size), tmp_path / "other" / "tokenizer")
    filtered[filtered.index("--data") + 1] = str(tmp_path / "other" / "data")
    assert command(filtered) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "4 usable, 2 broken" in said
    assert "or set data.broken=skip" in said
    assert command([*filtered, "--set", "data.broken=skip"]) == 0
    listed = (tmp_path / "other" / "unusable-1.txt").read_text("utf-8")
    assert [line.split("/")[-1].split(":")[0] for line in listed.splitlines()] == ["noise.png", "torn.png"]


def test_settled_rows_that_cannot_be_read_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = read_recipe(newest_checkpoint(trained))
    assert [stream.name for stream in with_settled_rows(trained, recipe).data.streams] == ["own"]
    (trained / "rows.json").write_text("[4]", "utf-8")
    assert command(["export", str(trained), str(tmp_path / "model")]) == 2
    assert "does not tell numbers of rows" in " ".join(capsys.readouterr().err.split())
    (trained / "rows.json").unlink()
    assert command(["export", str(trained), str(tmp_path / "model")]) == 0
    assert "| data | folders of pictures |" in (tmp_path / "model" / "README.md").read_text("utf-8")
