import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from licht.safety.provenance import read
from tests.cli.conftest import Licht
from tests.support.pictures import image, write_image

STORY = """
title = "The way home"
style = "flat colors"
seed = 7
seeds = "count"

[characters.cat]
images = ["cat.png", "cat-side.png"]
description = "a gray cat"
role = "subject"

[characters.hat]
images = ["hat.png"]

[[frames]]
prompt = "@cat sits"

[[frames]]
prompt = "@hat lies beside @cat."

[[frames]]
prompt = "an empty street"
seed = 99
"""


@pytest.fixture
def series(licht: Licht, tiny: Path, here: Path) -> Licht:
    """Runs `licht series story.toml OPTIONS` with the small model and bare pixels."""
    (here / "story.toml").write_text(STORY, encoding="utf-8")
    write_image(here / "cat.png")
    image().rotate(90).save(here / "cat-side.png")
    image().rotate(180).save(here / "hat.png")
    options = ("-m", tiny, "--device", "cpu")
    return lambda *more: licht(
        "series", "story.toml", *options, *(() if "--policy" in more else ("--policy", "off")), *more
    )


def test_a_story_is_drawn_frame_by_frame_with_a_sheet_at_the_end(series: Licht, licht: Licht, here: Path) -> None:
    outcome = series("--keep-prompt", "--steps", "1")
    assert (outcome.code, outcome.out) == (0, "story.results.jsonl\nstory/sheet.png\n")
    *warnings, last = outcome.err.splitlines()
    assert last == "3 drawn"
    assert [line.partition(" of ")[0] for line in warnings] == [
        f"frame {n}: warning: the prompt is too long for tiny: the first 40" for n in (1, 2, 3)
    ]
    frames = [json.loads(licht("inspect", f"story/frame-0{n}.png", "--json").out)["recipe"] for n in (1, 2, 3)]
    assert [frame["prompt"] for frame in frames] == [
        "a gray cat (image 1, image 2) sits. Style: flat colors",
        "hat (image 1) lies beside a gray cat (image 2, image 3). Style: flat colors",
        "an empty street. Style: flat colors",
    ]
    assert [frame["seed"] for frame in frames] == [7, 8, 99]
    assert [[used["role"] for used in frame["references"]] for frame in frames] == [
        ["subject", "subject"],
        [None, "subject", "subject"],
        [],
    ]
    cat = frames[0]["references"][0]["sha256"]
    assert frames[1]["references"][1]["sha256"] == cat
    sheet = np.asarray(Image.open(here / "story" / "sheet.png"))
    assert sheet.shape[0] > 700
    assert sheet.shape[1] > 700
    assert 100 < sheet.mean() < 250


def test_the_sheet_leaves_through_the_door(series: Licht, here: Path) -> None:
    assert series("--policy", "default", "--steps", "1", "--format", "jpg").code == 0
    reading = read((here / "story" / "sheet.jpg").read_bytes(), "JPEG")
    assert (reading.state, reading.ingredients) == ("valid", 3)


def test_a_story_goes_on_where_it_stopped(series: Licht, here: Path) -> None:
    (here / "hat.png").rename(here / "away.png")
    outcome = series("--steps", "1", "--json")
    assert outcome.code == 1
    assert "frame 2: hat.png cannot be read" in outcome.err
    report = json.loads(outcome.out)
    assert (report["drawn"], report["failed"], report["sheet"]) == (2, 1, None)
    (here / "away.png").rename(here / "hat.png")
    outcome = series("--steps", "1")
    assert (outcome.code, outcome.err.splitlines()[-1]) == (0, "1 drawn, 2 drawn before")
    assert (here / "story" / "sheet.png").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("@cat sits", "@dog sits"), "frame 1 mentions @dog; the characters are: @cat, @hat"),
        (("[[frames]]", "[[frames"), "story.toml is not TOML: "),
        (('style = "flat colors"', "style = 3"), "style: "),
        (("title = ", "titel = "), "titel: is unknown"),
        (('role = "subject"', 'role = "hero"'), "characters.cat.role: "),
        (('images = ["hat.png"]', "images = []"), "characters.hat"),
        (('"count"', '"dice"'), "seeds: "),
    ],
)
def test_a_story_with_a_mistake_is_one_line(series: Licht, here: Path, change: tuple[str, str], message: str) -> None:
    (here / "story.toml").write_text(STORY.replace(*change), encoding="utf-8")
    outcome = series()
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.error
    assert not (here / "story").exists()


def test_a_story_that_is_not_there_and_options_out_of_range_are_one_line(
    series: Licht, licht: Licht, here: Path
) -> None:
    assert "steps: input should be less than or equal to 50" in series("--steps", "99").error
    assert "width 100 px is not a multiple of 16" in series("--size", "100x100").error
    assert not (here / "story").exists()
    (here / "story.toml").unlink()
    assert series().error == "story.toml cannot be read (No such file or directory); check the path"
