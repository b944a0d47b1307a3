import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from licht.checkpoint.assets import built_in
from licht.checkpoint.detect import Layout
from licht.checkpoint.save import Target, save_network
from licht.cli.main import run
from licht.core.errors import OutOfMemory
from licht.model.transformer import Flux2Transformer
from tests.cli.conftest import Licht
from tests.support import models, raw
from tests.support.pictures import image, png_header, write_image


def test_a_picture_is_drawn_and_its_path_comes_last(generate: Licht, here: Path) -> None:
    outcome = generate("a cat", "--seed", "5")
    assert (outcome.code, outcome.out, outcome.err) == (0, "licht-5.png\n", "")
    opened = Image.open(here / "licht-5.png")
    assert (opened.format, opened.size) == ("PNG", (128, 64))
    assert [path.name for path in here.iterdir()] == ["licht-5.png"]


def test_a_free_name_is_found(generate: Licht, here: Path) -> None:
    for _ in range(3):
        assert generate("a cat", "--seed", "5").code == 0
    assert sorted(path.name for path in here.iterdir()) == ["licht-5-2.png", "licht-5-3.png", "licht-5.png"]


def test_without_a_seed_one_is_drawn_and_said(generate: Licht) -> None:
    seeds = [json.loads(generate("a cat", "--json").out)["images"][0]["seed"] for _ in range(2)]
    assert seeds[0] != seeds[1]
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize(("name", "file_format"), [("a.png", "PNG"), ("b.JPG", "JPEG"), ("sub/c.webp", "WEBP")])
def test_the_suffix_of_the_output_gives_the_format(generate: Licht, here: Path, name: str, file_format: str) -> None:
    (here / "sub").mkdir()
    outcome = generate("a cat", "-o", name)
    assert (outcome.code, outcome.out) == (0, f"{name}\n")
    assert Image.open(here / name).format == file_format


def test_several_pictures_are_numbered(generate: Licht, here: Path) -> None:
    outcome = generate("a cat", "--num", "3", "--seed", "7", "-o", "cat.png", "--json")
    report = json.loads(outcome.out)
    assert [made["path"] for made in report["images"]] == ["cat-1.png", "cat-2.png", "cat-3.png"]
    assert [made["seed"] for made in report["images"]] == [7, 8, 9]
    assert len({(here / made["path"]).read_bytes() for made in report["images"]}) == 3


def test_a_name_that_is_no_text_is_printed_as_the_bytes_that_it_is(
    here: Path, tiny: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert run(["generate", "a cat", "-o", "caf\udce9.png", "-m", str(tiny), "--device", "cpu"]) == 0
    assert capsysbinary.readouterr() == (b"caf\xe9.png\n", b"")
    assert (here / "caf\udce9.png").is_file()


REPORT: dict[str, type | UnionType] = {
    "model": str,
    "images": list,
    "steps": int,
    "guidance": float | None,
    "stages_s": dict,
    "peak_memory_bytes": int,
    "warnings": list,
}


def test_the_report_has_all_that_it_promises(generate: Licht, here: Path) -> None:
    write_image(here / "a.png")
    outcome = generate("a cat", "--size", "256x128", "--seed", "3", "-o", "out.png", "-i", "a.png", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    report = json.loads(outcome.out)
    assert set(REPORT) <= set(report)
    for name, kind in REPORT.items():
        assert isinstance(report[name], kind), name
    assert report["images"] == [{"path": "out.png", "seed": 3, "width": 256, "height": 128, "native_size": [128, 64]}]
    assert (report["model"], report["steps"], report["guidance"]) == ("tiny", 2, None)
    assert list(report["stages_s"]) == ["encode_prompt", "encode_references", "denoise", "decode"]
    assert all(seconds >= 0 for seconds in report["stages_s"].values())
    assert report["peak_memory_bytes"] > 10**7
    assert report["warnings"] == ["tiny was trained up to 128x64: drawn at 128x64, enlarged to 256x128"]


def test_warnings_go_to_stderr(generate: Licht) -> None:
    outcome = generate("x" * 50, "--size", "256x128", "-o", "out.png")
    assert (outcome.code, outcome.out) == (0, "out.png\n")
    assert outcome.err.splitlines() == [
        "warning: tiny was trained up to 128x64: drawn at 128x64, enlarged to 256x128",
        "warning: the prompt is too long for tiny: the first 40 of 75 tokens were used",
    ]


def test_the_same_seed_draws_the_same_file(generate: Licht, here: Path) -> None:
    for name in ("a.png", "b.png"):
        generate("a cat", "--seed", "5", "--steps", "3", "-o", name)
    generate("a cat", "--seed", "6", "--steps", "3", "-o", "c.png")
    one, same, other = ((here / name).read_bytes() for name in ("a.png", "b.png", "c.png"))
    assert one == same != other


def test_references_are_counted_in_their_order(generate: Licht, here: Path) -> None:
    write_image(here / "a.png", 80, 64)
    image(64, 96).rotate(180).save(here / "b.jpg")
    for first, second in (("a.png", "b.jpg"), ("b.jpg", "a.png")):
        assert generate("x", "-i", first, "-i", second, "--seed", "1", "-o", f"from-{first[0]}.png").code == 0
    made = [Image.open(here / f"from-{name}.png") for name in "ab"]
    assert [opened.size for opened in made] == [(80, 64), (64, 96)]


def test_an_empty_prompt_is_a_prompt(generate: Licht) -> None:
    assert generate("", "-o", "out.png").code == 0


def test_nothing_is_overwritten_in_silence(generate: Licht, here: Path) -> None:
    (here / "out.png").write_bytes(b"mine")
    outcome = generate("a cat", "-o", "out.png")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.error == "out.png exists; choose another name or pass --overwrite"
    assert (here / "out.png").read_bytes() == b"mine"
    assert generate("a cat", "-o", "out.png", "--overwrite").code == 0
    assert Image.open(here / "out.png").size == (128, 64)


def test_of_several_pictures_all_names_are_checked_first(generate: Licht, here: Path) -> None:
    (here / "out-3.png").write_bytes(b"mine")
    assert "out-3.png exists" in generate("a cat", "-n", "3", "-o", "out.png").error
    assert [path.name for path in here.iterdir()] == ["out-3.png"]


BAD_OPTIONS = [
    (("--size", ""), "size", "size '' is not WIDTHxHEIGHT in pixels"),
    (("--size", "big"), "size", "size 'big' is not WIDTHxHEIGHT in pixels, such as 1024x768"),
    (("--size", "48x64"), "size", "width 48 px is too small; use at least 64 px"),
    (("--size", "100x64"), "size", "width 100 px is not a multiple of 16; use 96 or 112"),
    (("--size", "4096x2048"), "size", "has 8.00 megapixels; at most 4"),
    (("--size", "64x1024"), "size", "size 64x1024 is longer than 8:1; choose a squarer one"),
    (("--size", "256x256", "--native-only"), "size", "ask for 64x64 or drop --native-only"),
    (("--steps", "0"), "steps", "0 steps asked for; use 1 to 50"),
    (("--steps", "51"), "steps", "51 steps asked for; use 1 to 50"),
    (("--seed", "-1"), "seed", "seed -1 is out of range; use 0 to 9223372036854775807"),
    (("--seed", str(2**63)), "seed", "seed 9223372036854775808 is out of range"),
    (("--seed", str(2**63 - 1), "-n", "2"), "seed", "seed 9223372036854775808 is out of range"),
    (("--num", "0"), "num", "0 pictures asked for; ask for 1 to 64"),
    (("--num", "1000000000000"), "num", "1000000000000 pictures asked for; ask for 1 to 64"),
    (("--guidance", "3"), "guidance", "tiny is distilled and takes no guidance scale; leave --guidance out"),
    (("--guidance", "nan"), "guidance", "guidance nan is out of range; use 0 to 100"),
    (("--dtype", "fp8"), "dtype", "dtype 'fp8' is unknown; use auto, float32 or bfloat16"),
    (("--policy", "none"), "policy", "policy 'none' is unknown; choose one of off, default, strict"),
    (
        ("--policy", "strict"),
        "policy",
        "policy strict needs a prompt filter and an image filter, and none is configured",
    ),
    (("--variant", "flux1"), "variant", "tiny: 'flux1' is not a kind of model; say which with --variant: klein, base"),
    (("--variant", "dev"), "variant", "tiny cannot be dev: its transformer has no guidance embedding"),
    (("--vae", "ae.safetensors"), "vae", "tiny is a whole model; --vae and --text-encoder only complete"),
    (("--text-encoder", "x"), "text_encoder", "is a whole model; --vae and --text-encoder only complete"),
    (("--output", "out.gif"), "output", "out.gif has no suffix of a known format; use .png, .jpg, .jpeg, .webp"),
    (("--output", ""), "output", "has no suffix of a known format"),
    (("--output", "..", "-n", "2"), "output", "has no suffix of a known format"),
    (("--output", "absent/out.png"), "output", "the folder absent does not exist; create it or choose another"),
    (("--output", "x" * 300 + ".png"), "output", "cannot be written (File name too long); choose another name"),
    (("-i", "absent.png"), "images", "absent.png cannot be read (No such file or directory); check the path"),
    (("-i", "."), "images", ". cannot be read (Is a directory); check the path"),
    (("-i", "notes.txt"), "images", "notes.txt is not a picture in PNG, JPEG, WEBP, BMP or TIFF; save it as one"),
    (("-i", "small.png"), "images", "image 1 (small.png) is 63x64 px; both sides must have at least 64 px"),
    (("-i", "long.png"), "images", "image 1 (long.png) is 64x513 px, longer than 8:1; crop it"),
    (("-i", "moving.webp"), "images", "moving.webp is an animation of 2 frames; use a single picture"),
    (("-i", "cut.png"), "images", "cut.png is damaged and cannot be decoded; save it again"),
    (("-i", "bomb.png"), "images", "bomb.png is 11000x11000 px, more than 100,000,000 pixels; make it smaller first"),
    (("-i", "a.png") * 4, "images", "4 reference images for tiny, which takes at most 3; leave some out"),
]


@pytest.fixture
def bad_pictures(tmp_path: Path) -> Path:
    """A folder of pictures that are no good, and one that is."""
    folder = tmp_path / "bad"
    folder.mkdir()
    write_image(folder / "a.png")
    write_image(folder / "small.png", 63, 64)
    write_image(folder / "long.png", 64, 513)
    image().save(folder / "moving.webp", save_all=True, append_images=[image().rotate(90)])
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:-100])
    (folder / "notes.txt").write_text("notes", encoding="utf-8")
    (folder / "bomb.png").write_bytes(png_header(11_000, 11_000))
    return folder


@pytest.mark.parametrize(("options", "field", "message"), BAD_OPTIONS, ids=lambda value: str(value)[:40])
def test_bad_input_is_one_line_and_leaves_nothing(
    generate: Licht,
    bad_pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    field: str,
    message: str,
) -> None:
    monkeypatch.chdir(bad_pictures)
    monkeypatch.setattr(Flux2Transformer, "forward", lambda *args: pytest.fail("something was drawn"))
    before = sorted(bad_pictures.iterdir())
    outcome = generate("a cat", *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.error
    with_json = generate("a cat", *options, "--json")
    assert with_json.code == 2
    said = json.loads(with_json.out)["error"]
    assert (said["message"], said["field"]) == (outcome.error, field)
    assert re.fullmatch("[a-z_]+", said["code"])
    assert sorted(bad_pictures.iterdir()) == before


@pytest.mark.parametrize("device", ["gpu", "cpu:1", "meta", ""])
def test_an_unknown_device_is_refused(licht: Licht, tiny: Path, device: str) -> None:
    outcome = licht("generate", "x", "-m", tiny, "--device", device)
    assert outcome.code == 2
    assert outcome.error == f"device {device!r} is unknown; use auto, cpu, cuda, cuda:N or mps"


def test_a_device_that_is_not_there_is_refused(licht: Licht, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    outcome = licht("generate", "x", "-m", tiny, "--device", "cuda:1")
    assert outcome.code == 2
    assert outcome.error == "device 'cuda:1' is not available on this machine; use --device auto"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a\x1b[31mb", "the prompt holds control characters (U+001B is character 2); send plain text"),
        ("\udcff", "the prompt holds control characters (U+DCFF is character 1)"),
        ("x" * 40_000, "the prompt has 40,000 characters; use at most 32,768"),
    ],
)
def test_a_prompt_that_is_no_text_is_refused(generate: Licht, here: Path, prompt: str, message: str) -> None:
    outcome = generate(prompt)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.error
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("", f"there is no model, folder or file ''; use a path, or one of {', '.join(built_in())}, dev"),
        ("nothing", "there is no model, folder or file 'nothing'; use a path, or one of nano"),
        (
            "klein-4b",
            "klein-4b is not installed: run `licht models get klein-4b`, copy the folder of black-forest-labs/FLUX.2-klein-4B to",
        ),
        (".", ". is not a model folder: it has no transformer/; expected transformer/, vae/"),
        ("~nobody-of-this-name", "'~nobody-of-this-name' cannot be a model, folder or file"),
    ],
)
def test_an_unknown_model_is_refused(generate: Licht, here: Path, model: str, message: str) -> None:
    outcome = generate("x", "--model", model)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.error
    assert list(here.iterdir()) == []


def spoil(part: str, name: str, value: float) -> Callable[[Path], object]:
    """Sets the first number of a tensor."""

    def change(folder: Path) -> object:
        tensor = raw.tensors(folder / part)[name]
        tensor.view(-1)[0] = value
        return raw.rewrite(folder / part, {name: tensor})

    return change


def replace(part: str, **tensors: torch.Tensor | None) -> Callable[[Path], object]:
    """Replaces tensors of a part."""
    return lambda folder: raw.rewrite(folder / part, {name.replace("__", "."): t for name, t in tensors.items()})


def cut(folder: Path) -> None:
    path = raw.only_file(folder / "transformer")
    path.write_bytes(path.read_bytes()[:-1])


def pickled(folder: Path) -> None:
    path = raw.only_file(folder / "vae")
    tensors = raw.tensors(path)
    path.unlink()  # it is mapped
    torch.save(tensors, path)


def shard_wrongly(folder: Path) -> None:
    raw.only_file(folder / "text_encoder").unlink()
    save_network(models.tower(), Target(folder / "text_encoder", "model", 3000), Layout.DIFFUSERS)
    next((folder / "text_encoder").glob("model-00003-*")).unlink()


BAD_CHECKPOINTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "missing": (replace("transformer", proj_out__weight=None), "invalid_checkpoint", "lacks proj_out.weight; expected"),
    "extra": (replace("vae", extra=torch.zeros(1)), "invalid_checkpoint", "has the unknown tensors extra; expected"),
    "shape": (
        replace("transformer", proj_out__weight=torch.zeros(16, 31)),
        "invalid_checkpoint",
        "has shape (16, 31); expected (16, 32); the file is damaged or of another model",
    ),
    "nan": (
        spoil("transformer", "proj_out.weight", float("nan")),
        "invalid_checkpoint",
        "has 1 values that are not finite; the file is damaged, copy it again",
    ),
    "infinite": (
        spoil("text_encoder", "model.embed_tokens.weight", float("inf")),
        "invalid_checkpoint",
        "tensor model.embed_tokens.weight in",
    ),
    "dtype": (
        replace("transformer", proj_out__weight=torch.zeros(16, 32, dtype=torch.int8)),
        "invalid_checkpoint",
        "is stored as torch.int8; use weights in float32, bfloat16 or float16",
    ),
    "truncated": (cut, "invalid_checkpoint", "is not a complete safetensors file"),
    "pickle": (pickled, "invalid_checkpoint", "is a pickle, which can run code when it is read"),
    "shard": (shard_wrongly, "invalid_checkpoint", "names the shard 'model-00003-of-000"),
    "part": (lambda folder: shutil.rmtree(folder / "vae"), "unknown_model", "is not a model folder: it has no vae/"),
    "kind": (
        lambda folder: models.change(folder / "licht.json", kind=None),
        "ambiguous_model",
        "say which with --variant",
    ),
    "contradiction": (
        lambda folder: models.change(folder / "licht.json", kind="dev"),
        "invalid_checkpoint",
        "broken cannot be dev: its transformer has no guidance embedding; use --variant klein, base or kv",
    ),
    "unknown key": (
        lambda folder: models.change(folder / "licht.json", kinds="klein"),
        "invalid_checkpoint",
        "licht.json is not a description of a model: kinds: Extra inputs are not permitted",
    ),
    "wrong type": (
        lambda folder: models.change(folder / "licht.json", text_length="64"),
        "invalid_checkpoint",
        "text_length: Input should be a valid integer",
    ),
    "config": (
        lambda folder: models.change(folder / "transformer" / "config.json", num_layers=9),
        "invalid_checkpoint",
        "says num_layers 9, its tensors make a network with 2; tensors are missing",
    ),
    "width": (
        lambda folder: models.change(folder / "licht.json", text_layers=[1, 2]),
        "invalid_checkpoint",
        "the transformer reads text of width 48, the text encoder gives 32 (2 x 16); use the encoder it was trained",
    ),
    "template": (
        lambda folder: models.change(folder / "licht.json", template="no place"),
        "invalid_checkpoint",
        "the template 'no place' must hold {prompt} exactly once",
    ),
    "tokenizer": (
        lambda folder: (folder / "tokenizer" / "tokenizer.json").write_text("{"),
        "invalid_checkpoint",
        "tokenizer.json is not a usable tokenizer",
    ),
}


@pytest.mark.parametrize("name", BAD_CHECKPOINTS)
def test_a_bad_checkpoint_is_one_line_and_leaves_nothing(
    generate: Licht, tiny: Path, here: Path, tmp_path: Path, name: str
) -> None:
    damage, code, message = BAD_CHECKPOINTS[name]
    folder = Path(shutil.copytree(tiny, tmp_path / "broken"))
    damage(folder)
    outcome = generate("a cat", "--model", folder, "--json")
    assert outcome.code == 2
    assert message in outcome.error
    said = json.loads(outcome.out)["error"]
    assert (said["code"], said["message"]) == (code, outcome.error)
    assert list(here.iterdir()) == []


def test_a_variant_solves_what_is_ambiguous(generate: Licht, tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "unclear"))
    models.change(folder / "licht.json", kind=None)
    report = json.loads(generate("x", "--model", folder, "--variant", "base", "--json").out)
    assert report["guidance"] == 4.0


def test_what_the_machine_fails_at_is_not_bad_input(
    generate: Licht, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **more: Any) -> None:  # noqa: ANN401
        raise MemoryError

    monkeypatch.setattr(Flux2Transformer, "forward", fail)
    outcome = generate("a cat", "--json")
    assert outcome.code == OutOfMemory.exit_code == 1
    assert json.loads(outcome.out)["error"]["code"] == "out_of_memory"
    assert "ran out of memory; ask for a smaller size" in outcome.error
    assert list(here.iterdir()) == []


def test_an_interrupt_keeps_what_is_finished_and_nothing_else(
    generate: Licht, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = Flux2Transformer.forward, []

    def interrupted(network: Flux2Transformer, *args: Any, **more: Any) -> torch.Tensor:  # noqa: ANN401
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(network, *args, **more)

    monkeypatch.setattr(Flux2Transformer, "forward", interrupted)
    outcome = generate("a cat", "-n", "3", "-o", "cat.png")
    assert (outcome.code, outcome.out, outcome.err) == (130, "", "interrupted\n")
    assert [path.name for path in here.iterdir()] == ["cat-1.png"]
    assert np.asarray(Image.open(here / "cat-1.png")).std() > 5
