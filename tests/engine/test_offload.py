"""Networks whose blocks come and go."""

from pathlib import Path

import pytest
import torch

from licht.checkpoint.folder import read_folder
from licht.checkpoint.load import Placement, load_transformer
from licht.engine.offload import BlockStream, PageCarrier, own_tensors, release, stream_blocks
from licht.model.positions import image_ids, text_ids
from licht.model.transformer import Flux2Transformer
from licht.model.variants import Kind
from licht.quant.int8 import Int8Linear
from licht.quant.pages import mappings
from tests.support import models, packed

META = torch.device("meta")
CPU = torch.device("cpu")
FLOAT32 = Placement(CPU, torch.float32)


class Recorder:
    """A carrier that only writes down what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self, block: int) -> None:
        self.told.append(f"begin {block}")

    def finish(self, block: int) -> None:
        self.told.append(f"finish {block}")

    def leave(self, block: int) -> None:
        self.told.append(f"leave {block}")


def test_a_block_is_fetched_while_the_one_before_it_runs() -> None:
    recorder = Recorder()
    stream = BlockStream(3, recorder)
    for block in (0, 0, 1, 2, 0):
        stream.arrive(block)
    assert recorder.told == [
        *("begin 0", "finish 0", "begin 1"),
        *("leave 0", "finish 1", "begin 2"),
        *("leave 1", "finish 2", "begin 0"),
        *("leave 2", "finish 0", "begin 1"),
    ]


def test_another_order_waits_and_leaves_nothing_behind() -> None:
    recorder = Recorder()
    stream = BlockStream(4, recorder)
    stream.arrive(0)
    recorder.told.clear()
    stream.arrive(3)
    assert recorder.told == ["leave 0", "finish 1", "leave 1", "begin 3", "finish 3", "begin 0"]
    alone = Recorder()
    BlockStream(1, alone).arrive(0)
    assert alone.told == ["begin 0", "finish 0"]


def run(network: Flux2Transformer, device: torch.device = CPU) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 24, network.config.in_channels, generator=generator).to(device)
    text = torch.randn(1, 3, network.config.context_in_dim, generator=generator).to(device)
    times = torch.full((1,), 0.7, device=device)
    with torch.inference_mode():
        out: torch.Tensor = network(x, image_ids((4, 6)).to(device), text, text_ids(3).to(device), times)
    return out


def test_two_blocks_are_on_the_device_at_a_time() -> None:
    """The device is torch's own stand-in without storage: what runs there and what comes back can be told apart."""
    network = models.transformer()
    size = stream_blocks(network, META)
    assert size == sum(t.numel() * 4 for name, t in network.state_dict().items() if "blocks" in name)
    for _ in range(2):
        assert run(network, META).device == META
        there = {
            ".".join(name.split(".")[:2])
            for name, tensor in network.state_dict().items()
            if "blocks" in name and tensor.device == META
        }
        assert there <= {"single_blocks.1", "double_blocks.0"}  # the last one, and the first one for the next step
        assert "single_blocks.1" in there
    assert all(t.device == META for name, t in network.state_dict().items() if "blocks" not in name)
    network.reference_cache(torch.zeros(1, 4, 16, device=META), torch.zeros(4, 4, dtype=torch.long, device=META))
    assert network.get_parameter("single_blocks.0.linear1.weight").device == CPU


def test_an_error_in_a_block_does_not_disturb_the_next_run() -> None:
    network = models.transformer()
    stream_blocks(network, META)
    with pytest.raises(RuntimeError):
        network.get_submodule("double_blocks.0.img_attn.qkv")(torch.zeros(1, 5, device=META))
    assert run(network, META).shape == (1, 24, 16)


@pytest.mark.parametrize("quant", [None, "int8"])
def test_pages_of_a_mapped_file_come_and_go(quant: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from licht.checkpoint.convert import Forms, write_network
    from licht.checkpoint.detect import Layout
    from licht.checkpoint.packed import open_weights

    write_network(packed.network(), tmp_path / "a.safetensors", Layout.OFFICIAL, Forms(quant or "none"), {})
    config = {"axes_dims_rope": [8, 8, 8, 8]}
    expected = run(load_transformer(open_weights(tmp_path / "a.safetensors"), FLOAT32, config))
    network = load_transformer(open_weights(tmp_path / "a.safetensors"), FLOAT32, config)
    let_go: list[int] = []
    plain = PageCarrier.leave

    def leave(self: PageCarrier, block: int) -> None:
        let_go.append(block)
        plain(self, block)

    monkeypatch.setattr(PageCarrier, "leave", leave)
    stream_blocks(network, CPU)
    for _ in range(2):
        torch.testing.assert_close(run(network), expected, rtol=1e-5, atol=1e-5)
    assert let_go == [0, 1, 2, 3, 0, 1, 2]
    held = mappings()
    for layer in network.double_blocks.modules():
        for tensor in own_tensors(layer).values():
            assert held.holds(tensor)
        if isinstance(layer, Int8Linear):
            assert layer.codes.numel(), "a rearranged copy would stay in memory"


def test_what_is_released_is_read_again(tmp_path: Path) -> None:
    files = read_folder(models.write_folder(tmp_path / "tiny", models.recipe(Kind.KLEIN)))
    network = load_transformer(files.transformer, FLOAT32, files.transformer_config)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    release(network, None)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
