"""The options of `licht generate` beyond one prompt and one size."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from licht.core.errors import EndpointFailed
from licht.core.request import Picture
from tests.cli.conftest import Licht
from tests.support.pictures import write_image


def shown(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(path))


def recipe(licht: Licht, name: str) -> dict[str, object]:
    said: dict[str, object] = json.loads(licht("inspect", name, "--json").out)["recipe"]
    return said


def test_several_prompts_are_drawn_one_after_another(generate: Licht, here: Path) -> None:
    outcome = generate("a", "b", "--num", "2", "--seed", "4", "--json", "-o", "x.png")
    report = json.loads(outcome.out)
    assert [(one["path"], one["seed"]) for one in report["images"]] == [
        ("x-1.png", 4),
        ("x-2.png", 5),
        ("x-3.png", 4),
        ("x-4.png", 5),
    ]
    assert report["prompts"] == ["a", "b"]
    assert not np.array_equal(shown(here / "x-1.png"), shown(here / "x-3.png"))
    assert generate("a", "b", "--seed", "4").out == "licht-4.png\nlicht-4-2.png\n"


def test_if_one_prompt_is_bad_nothing_is_drawn(generate: Licht, here: Path) -> None:
    outcome = generate("a", "b @image1")
    assert outcome.code == 2
    assert "mentions @image1, but no reference is given" in outcome.error
    assert list(here.iterdir()) == []


def test_a_structured_prompt_from_a_file_becomes_prose(generate: Licht, here: Path) -> None:
    (here / "scene.json").write_text('{"scene": "a table", "weather": "rain"}', encoding="utf-8")
    outcome = generate("--prompt-file", "scene.json", "--json")
    report = json.loads(outcome.out)
    assert report["prompts"] == ["A table. Weather: rain."]
    assert report["warnings"][0] == "weather is no field of the structured prompt; it was kept as it is"
    (here / "scene.txt").write_text("a cat\n", encoding="utf-8")
    assert json.loads(generate("--prompt-file", "scene.txt", "--json").out)["prompts"] == ["a cat"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "a cat", "the structured prompt is not JSON: "),
        ("a.json", '{"scene": 3}', "scene: must be a text"),
        ("a.json", '{"color_palette": ["#f00"]}', "color_palette.0: is not a color of the form #rrggbb"),
        ("a.txt", '{"scene": "x",}', "the structured prompt is not JSON: "),
        ("a.txt", "\xff", "a.txt is no text in UTF-8; save it as such"),
        ("a.txt", None, "a.txt cannot be read (No such file or directory); check the path"),
    ],
)
def test_a_file_that_is_no_prompt_is_one_line(
    generate: Licht, here: Path, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (here / name).write_bytes(text.encode("latin-1"))
    outcome = generate("--prompt-file", name)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.error


def test_roles_and_strengths_stand_behind_the_file(generate: Licht, licht: Licht, here: Path) -> None:
    for name in ("a.png", "b:role=style.png", "c.png"):
        write_image(here / name)
    references = ("-i", "a.png:role=style,strength=1.5", "-i", "b:role=style.png", "-i", "./c.png:strength=0")
    report = json.loads(generate("x", *references, "-o", "out.png", "--json").out)
    assert report["prompts"] == ["x. Take only the style from image 1, not what it shows."]
    used = recipe(licht, "out.png")["references"]
    assert [(one["role"], one["strength"]) for one in used] == [("style", 1.5), (None, 1.0), (None, 0.0)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "field", "message"),
    [
        (("-i", "a.png:role=hero"), "roles", "role 'hero' is unknown; use one of subject, style"),
        (("-i", "a.png:strength=5"), "strengths", "the strength 5.0 of a reference is out of range; use 0 to 4"),
        (("-i", "a.png:strength=nan"), "strengths", "is out of range"),
        (("-i", "a.png:strength=much"), "strengths", "strength 'much' of a.png is no number"),
        (("-i", "a.png:rule=style"), "images", "a.png:rule=style cannot be read"),
        (("--strength", "0.5"), "strength", "strength needs a picture to begin with"),
        (("--start", "a.png", "--strength", "0"), "strength", "strength 0.0 is out of range"),
        (("--start", "a.png", "--strength", "1.5"), "strength", "strength 1.5 is out of range"),
        (("--mask", "a.png"), "mask", "mask needs a picture that it changes"),
        (
            ("--start", "a.png", "--mask", "b.png"),
            "mask",
            "the mask is 80x64 px, the picture 64x64 px; make the mask 64x64",
        ),
        (("--start", "a.png", "--extend", "left=x"), "extend", "is not left=PX,top=PX"),
        (("--extend", "left=64"), "extend", "extend needs a picture that it changes"),
        (("--aspect", "huge"), "aspect", "aspect 'huge' is unknown"),
        (("--megapixels", "9"), "megapixels", "9 megapixels is out of range"),
        (("--size", "64x64", "--aspect", "square"), "size", "--size says it all"),
        (("--finish", "wax"), "finish", "finish 'wax' is unknown; choose one of none, phone, film"),
        (("--strict-length",), "prompt", "the prompt is too long for tiny: 40 of 75 tokens would be kept"),
        (("--preview", "a.png"), "preview", "a.png cannot be a folder for previews"),
        (("--upsample",), "upsample_with", "is no language model that can upsample prompts, only dev's is"),
        (
            ("--upsample", "--upsample-with", "http://127.0.0.1:9"),
            "upsample_with",
            "http://127.0.0.1:9 cannot be reached",
        ),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    generate: Licht, here: Path, options: tuple[str, ...], field: str, message: str
) -> None:
    write_image(here / "a.png")
    write_image(here / "b.png", 80, 64)
    before = sorted(here.iterdir())
    outcome = generate("x" * 50, *options, "--json")
    assert outcome.code == 2
    assert message in outcome.error
    assert json.loads(outcome.out)["error"]["field"] == field
    assert sorted(here.iterdir()) == before


def test_a_ratio_and_an_area_give_the_size(generate: Licht) -> None:
    def size(*options: str) -> tuple[int, int]:
        made = json.loads(generate("x", *options, "--json", "--steps", "1").out)["images"][0]
        return made["width"], made["height"]

    assert size("--aspect", "square") == (96, 96)  # the area of the model's own 128x64
    assert size("--aspect", "2:1") == (128, 64)
    assert size("--aspect", "square", "--megapixels", "0.0156") == (128, 128)
    assert size("--megapixels", "0.016") == (192, 96)


def test_a_picture_to_begin_with_keeps_what_the_mask_keeps(generate: Licht, here: Path) -> None:
    write_image(here / "start.png", 96, 64)
    mask = Image.new("L", (96, 64))
    mask.paste(255, (48, 0, 96, 64))
    mask.save(here / "mask.png")
    assert generate("x", "--start", "start.png", "--mask", "mask.png", "-o", "out.png").code == 0
    before, after = shown(here / "start.png"), shown(here / "out.png")
    assert np.array_equal(before[:, :48], after[:, :48])
    assert not np.array_equal(before[:, 48:], after[:, 48:])
    assert generate("x", "--start", "start.png", "--extend", "right=32,top=16", "-o", "wide.png").code == 0
    assert shown(here / "wide.png").shape == (80, 128, 3)
    assert np.array_equal(shown(here / "wide.png")[16:, :96], before)


def test_what_was_encoded_is_kept_between_runs(generate: Licht, here: Path) -> None:
    write_image(here / "a.png", 64, 64)
    drawn = [
        generate("a cat", "-i", "a.png", "--policy", "off", "--seed", "3", "-o", name, *options)
        for name, options in (("plain.png", ()), ("first.png", ("--cache", "kept")), ("again.png", ("--cache", "kept")))
    ]
    assert [outcome.code for outcome in drawn] == [0, 0, 0]
    assert len(list((here / "kept").rglob("*.safetensors"))) >= 2
    pictures = [shown(here / name) for name in ("plain.png", "first.png", "again.png")]
    assert np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(pictures[0], pictures[2])


def test_previews_of_every_step_are_written(generate: Licht, here: Path) -> None:
    assert generate("x", "--steps", "3", "--num", "2", "--preview", "steps", "-o", "x.png").code == 0
    names = sorted(path.name for path in (here / "steps").iterdir())
    assert names == [f"x-{number}-step-{step:02}-of-03.png" for number in (1, 2) for step in (1, 2, 3)]
    assert all(shown(here / "steps" / name).std() > 1 for name in names)


def test_a_finish_changes_the_picture_and_is_told(generate: Licht, licht: Licht, here: Path) -> None:
    for finish in ("none", "phone", "film"):
        assert generate("x", "--seed", "1", "--finish", finish, "-o", f"{finish}.png").code == 0
    made = [shown(here / f"{finish}.png").astype(float) for finish in ("none", "phone", "film")]
    assert all(1 < np.abs(made[0] - other).mean() < 20 for other in made[1:])
    assert recipe(licht, "film.png")["finish"] == "film"


class Scripted:
    """A language model that answers what it is told to."""

    def __init__(self, answer: str) -> None:
        self._answer = answer
        self.closed = False

    def answer(self, system: str, prompt: str, pictures: Sequence[Picture]) -> str:
        if not self._answer:
            raise EndpointFailed("the endpoint has not answered within 1 s; check it", field="upsample_with")
        return self._answer

    def close(self) -> None:
        self.closed = True


def test_the_prompt_that_was_really_used_is_reported(
    generate: Licht, licht: Licht, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Scripted("A fat gray cat.")
    monkeypatch.setattr("licht.upsample.choose.open_upsampler", lambda *options: model)
    outcome = generate("a cat", "--upsample", "--keep-prompt", "-o", "cat.png")
    assert (outcome.code, outcome.err) == (0, "prompt used: A fat gray cat.\n")
    assert model.closed
    assert recipe(licht, "cat.png")["prompt"] == "A fat gray cat."
    report = json.loads(generate('a sign "OPEN"', "--upsample", "--json").out)
    assert report["prompts"] == ['a sign "OPEN"']
    assert report["warnings"] == ['upsampling lost the text "OPEN" twice; the prompt was used as it is']
    model._answer = ""
    assert generate("a cat", "--upsample").error == "the endpoint has not answered within 1 s; check it"


def test_the_schema_and_what_a_model_reads_can_be_seen(licht: Licht, here: Path) -> None:
    schema = json.loads(licht("prompt", "schema").out)
    assert {"scene", "subjects", "color_palette", "camera", "texts"} <= set(schema["properties"])
    text = '{"scene": "a cat", "age": 3}'
    outcome = licht("prompt", "show", text)
    assert (outcome.out, outcome.err) == (
        "A cat. Age: 3.\n",
        "warning: age is no field of the structured prompt; it was kept as it is\n",
    )
    assert licht("prompt", "show", text, "--style", "json").out == text + "\n"
    assert licht("prompt", "show", "@image2", "--references", "2").out == "image 2\n"
    assert "mentions @image2" in licht("prompt", "show", "@image2").error
    assert "style 'verse' is unknown" in licht("prompt", "show", "x", "--style", "verse").error
    assert re.search("there is no prompt", licht("prompt", "show").error)
