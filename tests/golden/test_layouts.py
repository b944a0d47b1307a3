"""Files: what the reference saved comes back bit by bit, through either layout and in shards."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from licht.checkpoint.detect import Config, Layout
from licht.checkpoint.folder import ModelFiles
from licht.checkpoint.load import Placement, load_autoencoder, load_tower, load_transformer
from licht.checkpoint.reader import TensorSource, open_source
from licht.checkpoint.save import Target, official_tensors, save_network
from licht.model.autoencoder import Autoencoder
from licht.model.transformer import Flux2Transformer
from tests.golden.sections import BFLOAT16, FLOAT32, KINDS, Models

Loader = (
    Callable[[TensorSource, Placement, Config], Flux2Transformer]
    | Callable[[TensorSource, Placement, Config], Autoencoder]
)


@pytest.fixture(scope="module", params=KINDS)
def files(request: pytest.FixtureRequest, built: Models) -> ModelFiles:
    return built.files(request.param)


@pytest.fixture(params=["transformer", "autoencoder"])
def part(request: pytest.FixtureRequest, files: ModelFiles) -> tuple[Loader, TensorSource, Config]:
    if request.param == "transformer":
        return load_transformer, files.transformer, files.transformer_config
    return load_autoencoder, files.autoencoder, files.autoencoder_config


def _equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    # the number of batches seen is not written: it plays no part, and official files do not have it
    theirs = {name: tensor for name, tensor in theirs.items() if name != "bn.num_batches_tracked"}
    return ours.keys() == theirs.keys() and all(
        tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]) for name, tensor in ours.items()
    )


@pytest.mark.parametrize("shard_bytes", [10**9, 300_000], ids=["one file", "shards"])
@pytest.mark.parametrize("through", list(Layout))
def test_networks_come_back_bit_by_bit(
    through: Layout, shard_bytes: int, part: tuple[Loader, TensorSource, Config], tmp_path: Path
) -> None:
    load, source, config = part
    network = load(source, FLOAT32, config)
    written = save_network(network, Target(tmp_path / "first", "weights", shard_bytes), through)
    again = load(open_source(tmp_path / "first"), FLOAT32, config)
    save_network(again, Target(tmp_path / "second", "weights"), Layout.DIFFUSERS)

    assert (len(written) > 1) == (shard_bytes < 10**9)
    assert _equal(official_tensors(again), official_tensors(network))
    assert _equal(load_file(tmp_path / "second" / "weights.safetensors"), load_file(source.paths[0]))


def test_text_towers_come_back_bit_by_bit(files: ModelFiles, tmp_path: Path) -> None:
    tower = load_tower(files.tower, FLOAT32, files.variant.text)
    save_network(tower, Target(tmp_path, "model"), Layout.DIFFUSERS)
    again = load_tower(open_source(tmp_path), FLOAT32, files.variant.text)
    assert _equal(dict(again.state_dict()), dict(tower.state_dict()))


def test_bfloat16_comes_back_bit_by_bit(files: ModelFiles, tmp_path: Path) -> None:
    rounded = load_transformer(files.transformer, BFLOAT16, files.transformer_config)
    save_network(rounded, Target(tmp_path, "weights"), Layout.OFFICIAL)
    source = open_source(tmp_path)
    again = load_transformer(source, Placement(torch.device("cpu"), None), files.transformer_config)

    assert {info.dtype for info in source.infos.values()} == {torch.bfloat16}
    assert _equal(official_tensors(again), official_tensors(rounded))
    exact = official_tensors(load_transformer(files.transformer, FLOAT32, files.transformer_config))
    assert _equal(official_tensors(again), {name: tensor.bfloat16() for name, tensor in exact.items()})


def test_kinds_are_told_apart(built: Models) -> None:
    found = {kind: built.files(kind).variant for kind in KINDS}
    assert {kind: variant.kind.value for kind, variant in found.items()} == {kind: kind for kind in KINDS}
    assert built.official("kv").variant.kind is found["kv"].kind
    assert _sizes_agree(built.official("dev"), found["dev"].transformer)


def _sizes_agree(files: ModelFiles, sizes: object) -> bool:
    return files.variant.transformer == sizes


def test_the_official_file_has_official_names(built: Models) -> None:
    files = built.official("dev")
    network: nn.Module = load_transformer(files.transformer, FLOAT32, {})
    assert set(files.transformer) == set(network.state_dict())
    assert "double_blocks.0.img_attn.qkv.weight" in files.transformer
    assert files.transformer.metadata["licht.kind"] == "dev"
