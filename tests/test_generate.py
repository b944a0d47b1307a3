import io
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import licht
from licht.core.errors import (
    InvalidImage,
    InvalidOutput,
    InvalidPrompt,
    InvalidRequest,
    LichtError,
    NotAvailable,
    OutputExists,
)
from licht.core.request import ImageRequest, Mask, Picture, Progress, Role
from licht.core.sizes import Size
from licht.generate import Model, Result, mask_from, reference_from, references_from, seeds_from, start_from
from licht.model.variants import Kind
from licht.safety.policy import Level, Policy
from tests.support import models
from tests.support.pictures import encoded, image, reference, write_image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = models.recipe(Kind.KLEIN, trained_sizes=[[64, 64]])
    return models.write_folder(tmp_path_factory.mktemp("models") / "tiny", made)


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return licht.load(folder, device="cpu", policy="off")


def test_loading_by_path_and_by_name(folder: Path, model: Model) -> None:
    assert model.name == "tiny"
    assert licht.load(str(folder), variant="base", device="cpu", dtype="bfloat16").engine.variant.kind is Kind.BASE
    assert licht.load(device="cpu").name == "nano"
    assert licht.load(folder, policy="off", device="cpu").policy == Policy(Level.OFF)


def test_what_cannot_be_loaded_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="policy 'x' is unknown"):
        licht.load(folder, policy="x")
    with pytest.raises(NotAvailable, match="policy strict needs"):
        licht.load(folder, policy="strict")
    with pytest.raises(InvalidRequest, match="device 'x' is unknown"):
        licht.load(folder, device="x")
    with pytest.raises(InvalidRequest, match="--vae and --text-encoder only complete a transformer in a single file"):
        licht.load(folder, autoencoder=folder / "vae")


def test_a_result_is_the_picture_as_released(model: Model, tmp_path: Path) -> None:
    (result,) = model.generate("a cat", seed=3, size=(64, 64), steps=1)
    assert isinstance(result, Result)
    assert (result.seed, result.width, result.height, result.native_size) == (3, 64, 64, Size(64, 64))
    assert (result.steps, result.guidance, result.warnings) == (1, None, ())
    assert (result.image.format, result.image.mode, result.image.size) == ("PNG", "RGB", (64, 64))
    path = result.save(tmp_path / "cat.png")
    assert path == tmp_path / "cat.png"
    assert path.read_bytes() == result.released.data
    assert Image.open(path).tobytes() == result.image.tobytes()


@pytest.mark.parametrize(("suffix", "file_format"), [(".jpg", "JPEG"), (".webp", "WEBP")])
def test_a_result_can_be_saved_in_any_format(model: Model, tmp_path: Path, suffix: str, file_format: str) -> None:
    (result,) = model.generate("a cat", seed=3, steps=1)
    opened = Image.open(result.save(tmp_path / f"cat{suffix}"))
    assert opened.format == file_format
    # the picture is nearly noise, the worst that a lossy format can be given
    assert np.abs(np.asarray(opened).astype(int) - np.asarray(result.image)).mean() < 20
    assert result.image.format == "PNG"


def test_saving_overwrites_nothing_in_silence(model: Model, tmp_path: Path) -> None:
    (result,) = model.generate("a cat", seed=3, steps=1)
    result.save(tmp_path / "cat.png")
    with pytest.raises(OutputExists, match=r"cat\.png exists; choose another name"):
        result.save(str(tmp_path / "cat.png"))
    result.save(tmp_path / "cat.png", overwrite=True)
    with pytest.raises(InvalidOutput, match="has no suffix of a known format"):
        result.save(tmp_path / "cat.gif")
    with pytest.raises(InvalidOutput, match="does not exist"):
        result.save(tmp_path / "absent" / "cat.png")


def test_pictures_have_consecutive_seeds(model: Model) -> None:
    results = model.generate("a cat", seed=5, num=3, steps=1)
    assert [result.seed for result in results] == [5, 6, 7]
    (alone,) = model.generate("a cat", seed=6, steps=1)
    assert alone.released == results[1].released


def test_without_a_seed_every_run_differs(model: Model) -> None:
    seeds = {model.generate("a cat", steps=1)[0].seed for _ in range(3)}
    assert len(seeds) == 3


@pytest.mark.parametrize("size", ["96x64", (96, 64), [96, 64]])
def test_a_size_is_a_pair_or_a_text(model: Model, size: Any) -> None:  # noqa: ANN401
    (result,) = model.generate("a cat", size=size, seed=1, steps=1)
    assert (result.width, result.height) == (96, 64)
    assert result.native_size == Size(64, 64)
    assert len(result.warnings) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"size": (64,)}, InvalidRequest, "size (64,) is no pair; use (width, height) or 'WIDTHxHEIGHT'"),
        ({"size": 64}, InvalidRequest, "size 64 is no pair"),
        ({"size": (64, 64, 3)}, InvalidRequest, "is no pair"),
        ({"size": (64.0, 64)}, InvalidRequest, "width is 64.0, which is no whole number; use an int"),
        ({"size": (64, "64")}, InvalidRequest, "height is '64', which is no whole number"),
        ({"size": (65, 64)}, InvalidRequest, "width 65 px is not a multiple of 16"),
        ({"size": (96, 64), "native_only": True}, InvalidRequest, "drop --native-only"),
        ({"num": 0}, InvalidRequest, "0 pictures asked for; ask for 1 to 64"),
        ({"num": 10**15}, InvalidRequest, "1000000000000000 pictures asked for; ask for 1 to 64"),
        ({"num": 1.0}, InvalidRequest, "num is 1.0, which is no whole number"),
        ({"seed": 1.0}, InvalidRequest, "seed is 1.0, which is no whole number"),
        ({"seed": -1}, InvalidRequest, "seed -1 is out of range"),
        ({"steps": "4"}, InvalidRequest, "steps is '4', which is no whole number"),
        ({"steps": 51}, InvalidRequest, "51 steps asked for; use 1 to 50"),
        ({"guidance": 2.0}, InvalidRequest, "tiny is distilled and takes no guidance scale"),
        ({"images": ["absent.png"]}, InvalidImage, "absent.png cannot be read (No such file or directory)"),
        ({"images": [b"bytes"]}, InvalidImage, "image 1 is a bytes; pass a path or a Pillow image"),
        ({"images": [image(), None]}, InvalidImage, "image 2 is a NoneType; pass a path or a Pillow image"),
        ({"images": [image(63, 64)]}, InvalidImage, "image 1 (image 1) is 63x64 px; both sides must have at least 64"),
        ({"images": [image()] * 11}, InvalidRequest, "11 reference images for tiny, which takes at most 10"),
        ({"prompt": "a\0b"}, InvalidPrompt, "the prompt holds control characters (U+0000 is character 2)"),
    ],
)
def test_bad_requests_are_refused(
    model: Model, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        model.generate(**{"prompt": "a cat", "seed": 1, **arguments})


def test_references_come_as_paths_images_or_references(model: Model, tmp_path: Path) -> None:
    path, opened = write_image(tmp_path / "a.png", 80, 64), image(80, 64)
    results = [
        model.generate("a cat", images=[source], seed=1, steps=1)[0]
        for source in (path, str(path), opened, reference_from(path, 1))
    ]
    assert len({result.released for result in results}) == 1
    assert (results[0].width, results[0].height) == (80, 64)
    assert reference_from(opened, 2).name == "image 2"
    assert reference_from(path, 2).name == "a.png"


def test_a_pillow_image_is_turned_upright_like_its_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image(80, 64), "PNG", exif)
    (tmp_path / "a.png").write_bytes(data)
    turned = reference_from(Image.open(io.BytesIO(data)), 1)
    assert turned.picture == reference_from(tmp_path / "a.png", 1).picture
    assert turned.picture.size == Size(64, 80)


def test_nothing_is_drawn_before_it_is_admitted(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.engine, "run", lambda request: pytest.fail("the engine was asked"))
    with pytest.raises(InvalidPrompt):
        next(model.stream(ImageRequest("\x07", (1,))))


def test_a_stream_yields_progress_and_released_results(model: Model) -> None:
    request = ImageRequest("a cat", (1, 2), references=(reference(),), steps=1)
    events = list(model.stream(request, "WEBP"))
    assert [event.seed for event in events if isinstance(event, Result)] == [1, 2]
    assert {event.released.file_format for event in events if isinstance(event, Result)} == {"WEBP"}
    stages = [event.stage for event in events if isinstance(event, Progress) and event.done == event.total]
    assert stages == ["encode_prompt", "encode_references", "denoise", "decode", "denoise", "decode"]


def test_closing_a_stream_closes_the_engine(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    run = model.engine.run

    def watched(request: ImageRequest) -> Any:  # noqa: ANN401
        try:
            yield from run(request)
        finally:
            closed.append(True)

    monkeypatch.setattr(model.engine, "run", watched)
    stream = model.stream(ImageRequest("a cat", (1,)))
    next(stream)
    assert closed == []
    stream.close()  # type: ignore[attr-defined]
    assert closed == [True]


def test_seeds() -> None:
    assert seeds_from(7, 3) == (7, 8, 9)
    assert len(seeds_from(None, 64)) == 64
    first, second = (seeds_from(None, 1)[0] for _ in range(2))
    assert first != second


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": 5}, "the prompt is a int; use a str"),
        ({"prompt": b"x"}, "the prompt is a bytes; use a str"),
        ({"prompt": "x", "guidance": "3"}, "guidance is '3', which is no number"),
        ({"prompt": "x", "guidance": True}, "guidance is True, which is no number"),
        ({"prompt": "x", "images": None}, "images is a NoneType; pass a list of paths or pictures"),
        ({"prompt": "x", "images": "absent.png"}, "absent.png cannot be read"),
    ],
)
def test_what_python_passes_is_checked_like_what_people_type(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(message)):
        licht.load("nano", policy="off").generate(**arguments)


def test_roles_and_strengths_belong_to_the_references_one_by_one() -> None:
    made = references_from([image(), image(80)], ["style", None], [0.5, 2])
    assert [(one.role, one.strength) for one in made] == [(Role.STYLE, 0.5), (None, 2)]
    assert references_from(image())[0].strength == 1.0
    with pytest.raises(InvalidRequest, match="1 roles for 2 references; give one for each or none"):
        references_from([image(), image()], ["style"])
    with pytest.raises(InvalidRequest, match="role 'x' is unknown; use one of subject, style, background"):
        references_from(image(), ["x"])
    with pytest.raises(InvalidRequest, match="strength 5 of a reference is out of range; use 0 to 4"):
        references_from(image(), strengths=[5])


def test_a_start_has_a_strength_that_a_mask_changes(tmp_path: Path) -> None:
    made = [start_from(image(), given, masked) for given, masked in ((None, False), (None, True), (0.5, True))]
    assert [start.strength for start in made if start] == [0.75, 1.0, 0.5]
    path = write_image(tmp_path / "a.png")
    (read,) = (start_from(path) for _ in range(1))
    assert read is not None
    assert (read.name, read.file) == ("a.png", path.read_bytes())
    assert start_from(None) is None
    with pytest.raises(InvalidRequest, match="strength needs a picture to begin with; give start"):
        start_from(None, 0.5)


def test_a_mask_is_the_luminance_of_a_picture(tmp_path: Path) -> None:
    drawn = Image.new("L", (3, 2))
    drawn.putpixel((1, 0), 255)
    drawn.putpixel((2, 1), 128)
    drawn.save(tmp_path / "mask.png")
    expected = Mask(3, 2, bytes([0, 255, 0, 0, 0, 128]))
    assert mask_from(tmp_path / "mask.png") == mask_from(drawn) == mask_from(expected) == expected


class Scripted:
    """A language model that answers what it is told to, and remembers what it was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []
        self.closed = False

    def answer(self, system: str, prompt: str, pictures: Sequence[Picture]) -> str:
        self.asked.append((prompt, len(pictures)))
        return self.answers.pop(0)

    def close(self) -> None:
        self.closed = True


def test_a_prompt_is_written_out_before_it_is_drawn(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[object, ...]] = []
    writer = Scripted('The cat of image 1 on a "SUN" poster.', "no sign", "no sign")

    def open_upsampler(*named: object) -> Scripted:
        opened.append(named)
        return writer

    monkeypatch.setattr("licht.upsample.choose.open_upsampler", open_upsampler)
    asked: dict[str, Any] = {"seed": 3, "steps": 1, "upsample": True, "upsample_with": "http://x/v1"}
    prompt = 'a poster "SUN" with @image1'
    (drawn,) = model.generate(prompt, images=image(64, 64), keep_prompt=True, upsample_model="small", **asked)
    assert opened[0][:2] == ("http://x/v1", "small")
    assert writer.asked == [(prompt, 1)]
    assert writer.closed
    assert drawn.prompt == 'The cat of image 1 on a "SUN" poster.'
    assert drawn.recipe is not None
    assert drawn.recipe.prompt == drawn.prompt
    (plain,) = model.generate(drawn.prompt, images=image(64, 64), seed=3, steps=1)
    assert (plain.image.tobytes(), plain.prompt) == (drawn.image.tobytes(), drawn.prompt)
    (kept,) = model.generate(prompt, images=image(64, 64), **asked)
    assert kept.prompt == 'a poster "SUN" with image 1'
    assert kept.warnings[0] == 'upsampling lost the text "SUN" twice; the prompt was used as it is'


def test_only_what_may_be_drawn_is_sent_to_a_language_model(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("licht.upsample.choose.open_upsampler", lambda *named: pytest.fail("asked"))
    with pytest.raises(InvalidPrompt, match="control characters"):
        model.generate("a\x00cat", upsample=True)
    monkeypatch.undo()
    with pytest.raises(NotAvailable, match="only dev's is"):
        model.generate("a cat", upsample=True)


def test_one_role_and_one_strength_need_no_list() -> None:
    assert references_from(image(64, 64), Role.STYLE, 2.0) == references_from([image(64, 64)], ["style"], [2.0])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"extend": 64}, "extend is a int; use a text"),
        ({"mask": 3}, "the mask is a int; pass a path"),
        ({"start": 3}, "the start is a int; pass a path"),
        ({"strengths": None}, "strengths is a NoneType; pass a list"),
        ({"loras": "none.safetensors"}, "there is no LoRA none.safetensors"),
        ({"upsample": True, "upsample_with": 3}, "upsample_with is a int; use the address"),
    ],
)
def test_what_python_passes_wrongly_is_one_line(model: Model, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(LichtError, match=message):
        model.generate("x", **{"start": image(64, 64), "steps": 1, **asked})


def test_a_size_as_a_ratio_and_an_area(model: Model) -> None:
    (wide,) = model.generate("a cat", seed=1, aspect="2:1", steps=1)
    assert (wide.width, wide.height) == (128, 64)
    (large,) = model.generate("a cat", seed=1, megapixels=0.0156, steps=1)
    assert (large.width, large.height) == (128, 128)
    with pytest.raises(InvalidRequest, match="size says it all"):
        model.generate("a cat", size="64x64", aspect="wide")
    with pytest.raises(InvalidRequest, match="aspect 'broad' is unknown"):
        model.generate("a cat", aspect="broad")


def test_a_prompt_of_which_only_a_part_would_be_read(model: Model) -> None:
    with pytest.raises(InvalidPrompt, match="would be kept"):
        model.generate("a cat " * 2000, seed=1, size=(64, 64), steps=1, strict_length=True)


def test_a_structured_prompt_is_read_as_its_description_says(folder: Path, tmp_path: Path) -> None:
    asked = ImageRequest('{"subjects": [{"description": "a red cube"}], "background": "teal floor"}', (1,))
    prose = licht.load(folder, device="cpu", policy="off").settle_prompt(asked).text
    assert prose == "A red cube. Teal floor in the background."
    taught = shutil.copytree(folder, tmp_path / "taught")
    models.change(taught / "licht.json", structured_prompts=True)
    structured = licht.load(taught, device="cpu", policy="off").settle_prompt(asked).text
    assert structured == asked.prompt
    # the family's captions are structured now and then
    assert licht.load("nano", device="cpu", policy="off").settle_prompt(asked).text == asked.prompt
