import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Licht
from tests.support.pictures import image, write_image

TOO_LONG = "warning: the prompt is too long for tiny: the first 40 of 88 tokens were used\n"


def shown(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.fixture
def again(licht: Licht, tiny: Path) -> Licht:
    """Runs `licht again ARGUMENTS` with the small model and bare pixels."""
    return lambda *arguments: licht("again", *arguments, "-m", tiny, "--policy", "off", "--device", "cpu")


def test_a_picture_is_drawn_again_pixel_by_pixel(generate: Licht, again: Licht, here: Path) -> None:
    write_image(here / "a.png", 80, 64)
    image(64, 96).rotate(180).save(here / "b.jpg")
    options = ("--seed", "5", "--steps", "3", "--finish", "film", "--keep-prompt", "--size", "128x64")
    assert (
        generate("x @image2", *options, "-i", "a.png:role=style,strength=0.5", "-i", "b.jpg", "-o", "one.png").code == 0
    )
    outcome = again("one.png", "-o", "two.png")
    assert (outcome.code, outcome.out, outcome.err) == (0, "two.png\n", TOO_LONG)
    assert np.array_equal(shown(here / "one.png"), shown(here / "two.png"))
    assert again("two.png", "-o", "three.png", "--seed", "6").code == 0
    assert not np.array_equal(shown(here / "one.png"), shown(here / "three.png"))
    report = json.loads(again("one.png", "--finish", "none", "--steps", "2", "--size", "64x64", "--json").out)
    assert (report["steps"], report["images"][0]["width"], report["images"][0]["seed"]) == (2, 64, 5)


def test_start_and_mask_and_margins_are_repeated(generate: Licht, again: Licht, here: Path) -> None:
    write_image(here / "start.png", 90, 70)
    mask = Image.new("L", (90, 70))
    mask.paste(255, (20, 20, 60, 60))
    mask.save(here / "mask.png")
    options = ("--start", "start.png", "--strength", "0.8", "--mask", "mask.png", "--extend", "left=16", "--seed", "3")
    assert generate("x", *options, "--keep-prompt", "-o", "one.png").code == 0
    assert shown(here / "one.png").shape == (70, 106, 3)
    assert "was made with a mask; name it with --mask" in again("one.png").error
    assert again("one.png", "--mask", "mask.png", "-o", "two.png").code == 0
    assert np.array_equal(shown(here / "one.png"), shown(here / "two.png"))


def test_a_prompt_that_was_not_kept_has_to_be_given(generate: Licht, again: Licht, here: Path) -> None:
    generate("a cat", "--seed", "5", "-o", "one.png")
    outcome = again("one.png")
    assert outcome.code == 2
    assert outcome.error.startswith("one.png has not kept its prompt; give it with --prompt")
    assert b"a cat" not in (here / "one.png").read_bytes()
    assert again("one.png", "--prompt", "a cat", "-o", "two.png").code == 0
    assert np.array_equal(shown(here / "one.png"), shown(here / "two.png"))
    assert b"a cat" not in (here / "two.png").read_bytes()
    assert again("one.png", "--prompt", "a cat", "--keep-prompt", "-o", "three.png").code == 0
    assert b"a cat" in (here / "three.png").read_bytes()
    assert again("three.png", "--drop-prompt", "-o", "four.png").code == 0
    assert b"a cat" not in (here / "four.png").read_bytes()


def test_what_differs_although_nobody_asked_for_it_is_said(
    generate: Licht, again: Licht, licht: Licht, here: Path
) -> None:
    write_image(here / "a.png", 80, 64)
    generate("x", "-i", "a.png", "--keep-prompt", "-o", "one.png")
    (here / "other").mkdir()
    shutil.move(here / "a.png", here / "other")
    assert again("one.png").error == "image 1 is not beside the picture; name it with -i"
    image(80, 64).rotate(180).save(here / "b.png")
    assert again("one.png", "-i", "b.png").err == (
        "warning: the references are not the ones that the picture was made with\n"
    )
    outcome = licht("again", "one.png", "-i", "other/a.png", "-m", "nano", "--policy", "off", "--steps", "1")
    assert "warning: nano has other weights than the picture was made with" in outcome.err


@pytest.mark.parametrize("name", ["plain.png", "plain.jpg", "plain.webp"])
def test_a_picture_of_somebody_else_cannot_be_drawn_again(again: Licht, licht: Licht, here: Path, name: str) -> None:
    write_image(here / name)
    assert again(name).error == f"{name} does not say how it was made; only files of Licht can be drawn again"
    outcome = licht("inspect", name)
    assert (outcome.code, outcome.err) == (0, "")
    assert "made        the file does not say how" in outcome.out


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_inspect_says_how_a_picture_was_made(generate: Licht, licht: Licht, here: Path, suffix: str) -> None:
    write_image(here / "a.png", 80, 64)
    name = f"one.{suffix}"
    options = ("--seed", "5", "--finish", "phone", "-i", "a.png:role=pose,strength=2", "--policy", "default")
    generate('say "hi" & <b>', *options, "--keep-prompt", "-o", name)
    said = json.loads(licht("inspect", name, "--json").out)
    assert (said["credentials"], said["width"], said["height"]) == ("valid", 80, 64)
    recipe = said["recipe"]
    assert (recipe["prompt"], recipe["seed"], recipe["finish"], recipe["model"]) == (
        'say "hi" & <b>',
        5,
        "phone",
        "tiny",
    )
    assert (recipe["references"][0]["role"], recipe["references"][0]["strength"]) == ("pose", 2.0)
    plain = licht("inspect", name).out
    for part in (
        "model tiny (sha256:",
        "seed 5, 2 steps",
        "finish      phone",
        'prompt      say "hi" & <b>',
        ", pose, strength 2",
        "intact",
    ):
        assert part in plain


def test_what_cannot_be_inspected_is_one_line(licht: Licht, here: Path) -> None:
    (here / "notes.txt").write_text("notes")
    assert licht("inspect", "notes.txt").error.startswith("notes.txt is no PNG, JPEG or WebP file")
    assert licht("inspect", "none.png").error.startswith("none.png cannot be read")
    (here / "cut.png").write_bytes(write_image(here / "a.png").read_bytes()[:-100])
    assert licht("inspect", "cut.png").code == 2
