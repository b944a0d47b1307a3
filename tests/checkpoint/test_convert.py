import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from licht.checkpoint.convert import FORMATS, UNWRITTEN, convert, description
from licht.checkpoint.detect import Layout
from licht.checkpoint.folder import ModelFiles, read_folder
from licht.checkpoint.load import Placement, load_autoencoder, load_tower, load_transformer
from licht.checkpoint.save import official_tensors
from licht.checkpoint.stream import Planned, write_stream
from licht.core.errors import InvalidRequest, OutputExists, OutputFailed
from licht.model.variants import TextConfig, Tower, TowerConfig
from licht.quant.linear import QuantisedLinear
from tests.support import models, packed

CPU = Placement(torch.device("cpu"), torch.float32)
TEXT = TextConfig(TowerConfig(Tower.QWEN3, 300, 32, 64, 4, 4, 2, 8, 1e4, 1e-6), (1, 2, 3), 24)


@pytest.fixture(scope="module", params=list(Layout))
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """A model that is wide enough to be quantised, with settings that only its configurations tell."""
    made = models.Recipe(transformer=packed.SIZES, text=TEXT, layout=request.param)
    return read_folder(models.write_folder(tmp_path_factory.mktemp("source") / "wide", made))


def networks(files: ModelFiles) -> dict[str, torch.nn.Module]:
    return {
        "transformer": load_transformer(files.transformer, CPU, files.transformer_config),
        "vae": load_autoencoder(files.autoencoder, CPU, files.autoencoder_config),
        "tower": load_tower(files.tower, CPU, files.variant.text),
    }


@pytest.mark.parametrize("layout", list(Layout))
def test_nothing_is_lost_without_quantisation(source: ModelFiles, layout: Layout, tmp_path: Path) -> None:
    told: list[str] = []
    written = convert(source, tmp_path / "out", layout, "none", told.append)
    again = read_folder(tmp_path / "out")
    assert again.variant == source.variant.__class__(
        **{name: getattr(source.variant, name) for name in source.variant.__slots__} | {"name": "out"}
    )
    for name, network in networks(source).items():
        expected, found = official_tensors(network), official_tensors(networks(again)[name])
        assert expected.keys() == found.keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    assert len(told) == len(written) == 3
    assert all(one.size_bytes == one.path.stat().st_size for one in written)
    names = set(again.transformer)
    assert ("double_blocks.0.img_attn.qkv.weight" in names) is (layout is Layout.OFFICIAL)


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "none"])
@pytest.mark.parametrize("layout", list(Layout))
def test_a_quantised_model_reads_as_it_was_quantised(
    source: ModelFiles, layout: Layout, form: str, tmp_path: Path
) -> None:
    if form.startswith("gguf"):
        pytest.importorskip("gguf")
        if layout is Layout.DIFFUSERS:
            with pytest.raises(InvalidRequest, match="--to bfl"):
                convert(source, tmp_path / "out", layout, form, lambda _: None)
            return
    convert(source, tmp_path / "out", layout, form, lambda _: None)
    again = networks(read_folder(tmp_path / "out"))
    exact = networks(source)
    now = Placement(torch.device("cpu"), torch.float32, form if not form.startswith("gguf") else None)
    direct = load_transformer(source.transformer, now, source.transformer_config)
    error = {
        "fp8": 0.03,
        "int8": 0.01,
        "q4": 0.1,
        "nvfp4": 0.11,
        "gguf-q8_0": 0.01,
        "gguf-q5_0": 0.06,
        "gguf-q4_0": 0.1,
    }[form]
    quantised = 0
    for part in ("transformer", "tower"):
        for name, expected in official_tensors(exact[part]).items():
            owner = again[part].get_submodule(name.rpartition(".")[0])
            found = getattr(owner, name.rpartition(".")[2])
            difference = float((found - expected).norm() / expected.norm())
            assert difference < error, name
            quantised += difference > 0
            # one scale for the matrix is one for each of q, k and v in the other layout
            if part == "transformer" and not form.startswith("gguf") and (form != "nvfp4" or layout is Layout.OFFICIAL):
                torch.testing.assert_close(
                    found, getattr(direct.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2])
                )
    assert quantised >= 16
    assert any(isinstance(layer, QuantisedLinear) for layer in again["transformer"].modules())


def test_a_quantised_model_can_be_converted_again(source: ModelFiles, tmp_path: Path) -> None:
    convert(source, tmp_path / "fp8", Layout.OFFICIAL, "fp8", lambda _: None)
    small = read_folder(tmp_path / "fp8")
    convert(small, tmp_path / "plain", Layout.DIFFUSERS, "none", lambda _: None)
    first = networks(small)["transformer"]
    second = official_tensors(networks(read_folder(tmp_path / "plain"))["transformer"])
    for name, tensor in second.items():
        owner = first.get_submodule(name.rpartition(".")[0])
        torch.testing.assert_close(tensor, getattr(owner, name.rpartition(".")[2]), rtol=4e-3, atol=1e-6)
    convert(small, tmp_path / "q4", Layout.OFFICIAL, "q4", lambda _: None)
    assert networks(read_folder(tmp_path / "q4"))


def test_fp8_files_say_what_they_are(source: ModelFiles, tmp_path: Path) -> None:
    convert(source, tmp_path / "out", Layout.OFFICIAL, "fp8", lambda _: None)
    (path,) = (tmp_path / "out" / "transformer").glob("*.safetensors")
    with safe_open(path, "pt") as file:
        said = json.loads(file.metadata()["_quantization_metadata"])
        assert file.metadata()["licht.kind"] == "klein"
        layer = "double_blocks.0.img_attn.qkv"
        assert said["layers"][layer] == {"format": "float8_e4m3fn"}
        assert file.get_tensor(f"{layer}.weight").dtype is torch.float8_e4m3fn
        assert file.get_tensor(f"{layer}.weight_scale").shape == (192,)
        assert file.get_tensor("img_in.weight").dtype is torch.float32


def test_what_cannot_be_written_is_refused(source: ModelFiles, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("", encoding="utf-8")
    with pytest.raises(OutputExists, match="is there already"):
        convert(source, tmp_path / "full", Layout.OFFICIAL, "none", lambda _: None)
    with pytest.raises(InvalidRequest, match="'fp7' is unknown"):
        convert(source, tmp_path / "out", Layout.OFFICIAL, "fp7", lambda _: None)
    assert not (tmp_path / "out").exists()


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    def fail() -> dict[str, torch.Tensor]:
        raise OSError(28, "No space left on device")

    planned = [
        Planned({"a": (torch.float32, (2,))}, lambda: {"a": torch.ones(2)}),
        Planned({"b": (torch.float32, (2,))}, fail),
    ]
    with pytest.raises(OutputFailed, match="No space left"):
        write_stream(tmp_path / "x.safetensors", planned, {})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="a was planned as"):
        write_stream(tmp_path / "x.safetensors", [Planned({"a": (torch.float32, (3,))}, planned[0].make)], {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", UNWRITTEN)
def test_formats_that_cannot_be_written_are_said_to_be_so(source: ModelFiles, form: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=f"{form} is read but not written"):
        convert(source, tmp_path / "out", Layout.OFFICIAL, form, lambda place: None)
    assert not (tmp_path / "out").exists()


def test_a_description_reads_as_the_same_variant(source: ModelFiles, tmp_path: Path) -> None:
    said = {"kind": "base", "text_layers": [1, 2, 3], "text_length": 64, "trained_sizes": [[128, 128], [96, 160]]}
    said |= {
        "structured_prompts": True,
        "max_references": 7,
        "caches_references": True,
        "reference_area_px": 128 * 128,
        "default_steps": 12,
    }
    shutil.copytree(source.parts.transformer.parent, tmp_path / "described", symlinks=False)
    (tmp_path / "described" / "licht.json").write_text(json.dumps(said), encoding="utf-8")
    described = read_folder(tmp_path / "described")
    convert(described, tmp_path / "again", Layout.DIFFUSERS, "none", lambda _: None)
    assert replace(read_folder(tmp_path / "again").variant, name=described.variant.name) == described.variant
    assert description(source.variant, "x")["template"] == "x"
    assert "template" not in description(source.variant, None)
