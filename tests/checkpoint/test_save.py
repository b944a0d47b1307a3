import dataclasses
import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from licht.checkpoint.detect import Layout
from licht.checkpoint.load import Placement, load_autoencoder, load_tower, load_transformer
from licht.checkpoint.reader import open_source
from licht.checkpoint.save import Target, named_tensors, official_tensors, save_network, write_json
from licht.core.errors import OutputFailed
from licht.model.autoencoder import Autoencoder
from licht.model.linear import StackedLinear
from licht.model.text import TextTower
from licht.model.transformer import Flux2Transformer
from tests.support import models, raw
from tests.support.bounds import full_disk

CPU = Placement(torch.device("cpu"), None)
OTHER = {Layout.OFFICIAL: Layout.DIFFUSERS, Layout.DIFFUSERS: Layout.OFFICIAL}
Network = Flux2Transformer | Autoencoder | TextTower
NETWORKS = pytest.mark.parametrize(
    "module",
    [
        pytest.param(models.transformer(), id="transformer"),
        pytest.param(models.transformer(models.DEV_TRANSFORMER), id="dev transformer"),
        pytest.param(models.autoencoder(), id="autoencoder"),
        pytest.param(models.tower(), id="qwen3 tower"),
        pytest.param(models.tower(models.MISTRAL_TEXT), id="mistral3 tower"),
    ],
)
LAYOUTS = pytest.mark.parametrize("layout", list(Layout))


def load(module: Network, folder: Path) -> Network:
    """What is in a folder, loaded as a network of the kind of `module`."""
    source = open_source(folder)
    if isinstance(module, Flux2Transformer):
        return load_transformer(source, CPU, {})
    if isinstance(module, Autoencoder):
        return load_autoencoder(source, CPU, {"norm_num_groups": 4})
    return load_tower(source, CPU, module.config)


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    ours, theirs = official_tensors(one), official_tensors(other)
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor, theirs[name]), name


@NETWORKS
@LAYOUTS
@pytest.mark.parametrize("shard_bytes", [10**9, 2000], ids=["one file", "shards"])
def test_a_round_trip_is_exact_to_the_bit(module: Network, layout: Layout, shard_bytes: int, tmp_path: Path) -> None:
    paths = save_network(module, Target(tmp_path, "model", shard_bytes), layout)
    assert (len(paths) > 3) == (shard_bytes == 2000)
    assert_same_weights(load(module, tmp_path), module)


@NETWORKS
@LAYOUTS
def test_so_is_one_through_the_other_layout(module: Network, layout: Layout, tmp_path: Path) -> None:
    save_network(module, Target(tmp_path / "one", "model"), layout)
    save_network(load(module, tmp_path / "one"), Target(tmp_path / "two", "model"), OTHER[layout])
    save_network(load(module, tmp_path / "two"), Target(tmp_path / "three", "model"), layout)
    assert_same_weights(load(module, tmp_path / "two"), module)
    first, third = (raw.only_file(tmp_path / name).read_bytes() for name in ("one", "three"))
    assert first == third


@LAYOUTS
def test_bfloat16_stays_as_it_is(layout: Layout, tmp_path: Path) -> None:
    module = models.transformer().bfloat16()
    save_network(module, Target(tmp_path, "model"), layout)
    assert {tensor.dtype for tensor in raw.tensors(tmp_path).values()} == {torch.bfloat16}
    assert_same_weights(load(module, tmp_path), module)


def test_the_names_are_those_of_the_layout(tmp_path: Path) -> None:
    official = dict(named_tensors(models.transformer(), Layout.OFFICIAL))
    diffusers = dict(named_tensors(models.transformer(), Layout.DIFFUSERS))
    assert {"img_in.weight", "double_blocks.0.img_attn.qkv.weight", "final_layer.linear.weight"} <= set(official)
    assert {"x_embedder.weight", "transformer_blocks.0.attn.to_q.weight", "proj_out.weight"} <= set(diffusers)
    assert not set(official) & set(diffusers) - {"double_stream_modulation_img.lin.weight"}
    for layout in Layout:
        assert "model.embed_tokens.weight" in dict(named_tensors(models.tower(), layout))


def test_rows_in_several_matrices_are_saved_as_one(tmp_path: Path) -> None:
    save_network(models.transformer(), Target(tmp_path / "one", "model"), Layout.DIFFUSERS)
    stacked = load(models.transformer(), tmp_path / "one")
    assert any(isinstance(module, StackedLinear) for module in stacked.modules())
    save_network(stacked, Target(tmp_path / "two", "model"), Layout.OFFICIAL)
    names = set(raw.tensors(tmp_path / "two"))
    assert "double_blocks.0.img_attn.qkv.weight" in names
    assert not any("blocks.0.img_attn.qkv.blocks" in name for name in names)


def test_shards_are_numbered_and_indexed(tmp_path: Path) -> None:
    paths = save_network(models.tower(), Target(tmp_path, "model", 5000), Layout.DIFFUSERS, {"licht.kind": "klein"})
    assert paths[0].name == f"model-00001-of-{len(paths):05d}.safetensors"
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == sorted(path.name for path in paths)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text("utf-8"))
    assert set(index["weight_map"].values()) == {path.name for path in paths}
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in official_tensors(models.tower()).values())
    for path in paths:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            sizes = [file.get_tensor(name).nbytes for name in names]
            assert file.metadata() == {"format": "pt", "licht.kind": "klein"}
        assert len(names) == 1 or sum(sizes) <= 5000
        assert {name for name, shard in index["weight_map"].items() if shard == path.name} == set(names)


def test_one_file_has_no_index(tmp_path: Path) -> None:
    (path,) = save_network(models.autoencoder(), Target(tmp_path / "new" / "vae", "ae"), Layout.OFFICIAL)
    assert path == tmp_path / "new" / "vae" / "ae.safetensors"
    assert [file.name for file in path.parent.iterdir()] == ["ae.safetensors"]


def no_space(*args: Any, **more: Any) -> None:  # noqa: ANN401
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file that is already there."""
    folder = tmp_path_factory.mktemp("saved")
    return save_network(models.transformer(), Target(folder, "model"), Layout.OFFICIAL)[0].read_bytes()


@pytest.mark.parametrize("shard_bytes", [10**9, 2000], ids=["one file", "shards"])
def test_what_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path, shard_bytes: int) -> None:
    with full_disk(1024), pytest.raises(OutputFailed, match=r"cannot be written \(.*File too large.*\); make room"):
        save_network(models.transformer(), Target(tmp_path, "model", shard_bytes), Layout.OFFICIAL)
    assert not [path for path in tmp_path.iterdir() if path.stat().st_size > 1024 or path.name.startswith(".")]


@pytest.mark.parametrize("step", ["os.fsync", "licht.checkpoint.save.save_file", "pathlib.Path.replace"])
def test_a_disk_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, saved: bytes
) -> None:
    target = Target(tmp_path, "model")
    path = tmp_path / "model.safetensors"
    path.write_bytes(saved)
    monkeypatch.setattr(step, no_space)
    with pytest.raises(OutputFailed, match=r"cannot be written \(No space left on device\); make room") as caught:
        save_network(models.transformer(seed=9), target, Layout.OFFICIAL)
    assert str(tmp_path) in caught.value.message
    assert path.read_bytes() == saved
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(OutputFailed, match=r"cannot be written \((File exists|Not a directory)\)"):
        save_network(models.transformer(), Target(tmp_path / "file", "model"), Layout.OFFICIAL)


def test_json_is_complete_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "licht.json"
    write_json(path, {"kind": "klein"})
    with pytest.raises(TypeError):
        write_json(path, {"kind": object()})
    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"kind": "base"})
    assert json.loads(path.read_text("utf-8")) == {"kind": "klein"}
    assert list(tmp_path.iterdir()) == [path]


def test_an_unusual_autoencoder_survives_as_well(tmp_path: Path) -> None:
    sizes = dataclasses.replace(models.AUTOENCODER, channels=(8, 8, 4, 4), num_res_blocks=2)
    module = models.autoencoder(sizes)
    for layout in Layout:
        save_network(module, Target(tmp_path / layout, "ae"), layout)
        assert_same_weights(load(module, tmp_path / layout), module)
