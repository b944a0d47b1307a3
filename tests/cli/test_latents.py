"""`licht encode` and `licht decode`: pictures as latents and back, and every file that is something else."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import licht
from licht.checkpoint.detect import Layout
from licht.checkpoint.folder import read_folder
from licht.checkpoint.load import Placement, load_autoencoder
from licht.cli.main import run
from licht.engine.latents import FORMAT, latent_space
from licht.model.variants import Kind
from tests.support import models
from tests.support.pictures import write_image

OFF = ["--policy", "off", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write_folder(tmp_path_factory.mktemp("models") / "tiny", models.recipe(Kind.KLEIN))


def encoded(path: Path, model: str = "nano") -> Path:
    assert run(["encode", str(path), "-m", model, *OFF]) == 0
    return path.with_suffix(".safetensors")


def test_a_picture_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = licht.load("nano", policy="off", device="cpu").generate("a red sphere on a gray floor", seed=1, steps=4)[0]
    path = made.save(tmp_path / "a.png")
    assert run(["encode", str(path), *OFF, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["size"], report["shape"][0], report["shape"][2:]) == ([128, 128], 1, [8, 8])
    with safe_open(report["path"], framework="pt") as file:
        said = file.metadata()
    assert said == {"format": FORMAT, "autoencoder": report["autoencoder"], "width": "128", "height": "128"}
    assert run(["decode", report["path"], "-o", str(tmp_path / "b.png"), *OFF]) == 0
    one, other = (np.asarray(Image.open(tmp_path / name)).astype(float) for name in ("a.png", "b.png"))
    assert np.sqrt(((one - other) ** 2).mean()) < 12  # measured: 6.2


@pytest.mark.parametrize(("width", "height"), [(65, 64), (70, 113), (128, 64)])
def test_every_size_that_can_be_drawn_comes_back_as_large(tmp_path: Path, width: int, height: int) -> None:
    latents = encoded(write_image(tmp_path / "a.png", width, height))
    assert run(["decode", str(latents), "-o", str(tmp_path / "b.webp"), *OFF]) == 0
    assert Image.open(tmp_path / "b.webp").size == (width, height)


def test_the_space_is_the_encoder_and_neither_layout_nor_format(tmp_path: Path) -> None:
    files = {
        layout: read_folder(models.write_folder(tmp_path / layout.value, models.recipe(Kind.KLEIN, layout)))
        for layout in Layout
    }
    spaces = {
        latent_space(
            load_autoencoder(found.autoencoder, Placement(torch.device("cpu"), dtype), found.autoencoder_config)
        )
        for found in files.values()
        for dtype in (torch.float32, torch.bfloat16)
    }
    assert len(spaces) == 1
    changed = models.autoencoder()
    with torch.no_grad():
        changed.decoder.conv_in.weight.mul_(2)
    assert latent_space(changed) in spaces
    with torch.no_grad():
        changed.encoder.conv_in.weight.mul_(2)
    assert latent_space(changed) not in spaces


def test_latents_of_another_autoencoder_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    latents = encoded(write_image(tmp_path / "a.png"), str(folder))
    assert run(["decode", str(latents), "-o", str(tmp_path / "b.png"), *OFF]) == 2
    assert "error: these latents are of another autoencoder" in capsys.readouterr().err
    assert not (tmp_path / "b.png").exists()
    assert run(["decode", str(latents), "-o", str(tmp_path / "b.png"), "-m", str(folder), *OFF]) == 0


def test_decoding_goes_through_the_door(trust_home: Path, tmp_path: Path) -> None:
    del trust_home
    latents = encoded(write_image(tmp_path / "a.png", 256, 256))
    assert run(["decode", str(latents), "-o", str(tmp_path / "b.png"), "--device", "cpu"]) == 0
    assert run(["decode", str(latents), "-o", str(tmp_path / "c.png"), *OFF]) == 0
    from licht.safety.provenance import read

    assert read((tmp_path / "b.png").read_bytes(), "PNG").state == "valid"
    assert read((tmp_path / "c.png").read_bytes(), "PNG").state == "none"


@pytest.fixture
def trust_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


def rewritten(path: Path, change: Callable[[dict[str, Tensor], dict[str, str]], object]) -> None:
    with safe_open(path, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name).clone() for name in file.keys()}, dict(file.metadata())  # noqa: SIM118
    change(tensors, metadata)
    save_file(tensors, path, metadata)


def set_tensor(**made: Tensor) -> Callable[[dict[str, Tensor], dict[str, str]], object]:
    return lambda tensors, metadata: tensors.update(made)


def set_metadata(**said: str) -> Callable[[dict[str, Tensor], dict[str, str]], object]:
    return lambda tensors, metadata: metadata.update(said)


DAMAGES: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "not there": (Path.unlink, "cannot be read|no safetensors"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-8]), "is no safetensors file"),
    "no safetensors": (lambda path: path.write_bytes(b"PNG" * 100), "is no safetensors file"),
    "a network": (
        lambda path: save_file({"weight": torch.zeros(2)}, path),
        "holds no latents of Licht's; make some with licht encode",
    ),
    "another format": (lambda path: rewritten(path, set_metadata(format="x")), "holds no latents of Licht's"),
    "a size in words": (lambda path: rewritten(path, set_metadata(width="wide")), "is damaged"),
    "a huge size": (lambda path: rewritten(path, set_metadata(width="99999")), "more than 4 megapixels"),
    "another size": (lambda path: rewritten(path, set_metadata(width="128")), "holds F32 latents of shape"),
    "another tensor": (lambda path: rewritten(path, set_tensor(more=torch.zeros(1))), "is damaged"),
    "half precision": (
        lambda path: rewritten(path, set_tensor(latents=torch.zeros(1, 128, 4, 4).half())),
        "holds F16 latents of shape",
    ),
    "not finite": (
        lambda path: rewritten(path, set_tensor(latents=torch.full((1, 128, 4, 4), float("nan")))),
        "holds values that are not finite",
    ),
    "other channels": (
        lambda path: rewritten(path, set_tensor(latents=torch.zeros(1, 3, 4, 4))),
        "the latents have 3 channels, the autoencoder has",
    ),
    "another autoencoder": (lambda path: rewritten(path, set_metadata(autoencoder="x")), "of another autoencoder"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_latents_is_refused_in_one_line(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    latents = encoded(write_image(tmp_path / "a.png"))
    change, message = DAMAGES[damage]
    change(latents)
    capsys.readouterr()
    assert run(["decode", str(latents), "-o", str(tmp_path / "b.png"), *OFF]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert any(part in line for part in message.split("|"))
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "absent.png"], "absent.png cannot be read"),
        (["encode", "small.png"], "the picture is 63x64 px; both sides need at least 64 px"),
        (["encode", "a.png", "-o", "a.pt"], "a.pt does not end in .safetensors"),
        (["encode", "a.png", "-o", "absent/a.safetensors"], "the folder absent does not exist"),
        (["encode", "a.png", "-o", "taken.safetensors"], "taken.safetensors exists; choose another name"),
        (["decode", "a.png"], "a.png exists"),
        (["decode", "a.png", "-o", "b.gif"], "has no suffix of a known format"),
    ],
)
def test_bad_arguments(
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(Path("a.png"))
    write_image(Path("small.png"), 63, 64)
    Path("taken.safetensors").touch()
    assert run([*arguments, *OFF]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob(".*.part"))


def test_overwriting_is_asked_for(tmp_path: Path) -> None:
    latents = encoded(write_image(tmp_path / "a.png"))
    before = latents.read_bytes()
    write_image(tmp_path / "a.png", 80, 64)
    arguments: list[Any] = ["encode", str(tmp_path / "a.png"), *OFF]
    assert run(arguments) == 2
    assert latents.read_bytes() == before
    assert run([*arguments, "--overwrite"]) == 0
    assert latents.read_bytes() != before
