"""Networks that are made deeper compute what they computed before."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from licht.core.errors import InvalidSettings
from licht.training.flow import FlowBatch, FlowNetworks
from licht.training.grow import block_counts, deepened
from licht.training.trained import open_networks
from tests.training.runs import TINY, alive, autoencoder_run, flow_run


def velocity(networks: FlowNetworks) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    tokens, references = torch.randn(2, 2, 4, 4 * TINY.z_channels, generator=generator)
    ids = torch.tensor([[1, 2, 3, 4]] * 2)
    attended = torch.ones_like(ids)
    batch = FlowBatch(tokens, tokens, torch.tensor([0.3, 0.8]), (2, 2), ids, attended, references, ((2, 2),))
    with torch.no_grad():
        return networks.velocity(batch, tokens, batch.t_B)


@pytest.mark.parametrize(("more", "more_single"), [(0, 1), (1, 2), (3, 4)])
def test_deeper_networks_compute_the_same(more: int, more_single: int) -> None:
    networks = FlowNetworks(TINY)
    alive(networks, 5)
    sizes = replace(TINY, depth=TINY.depth + more, depth_single=TINY.depth_single + more_single)
    deeper = FlowNetworks(sizes)
    deeper.load_state_dict(deepened(networks.state_dict(), sizes.depth, sizes.depth_single))
    assert block_counts(deeper.state_dict()) == {"double_blocks": sizes.depth, "single_blocks": sizes.depth_single}
    assert torch.equal(velocity(deeper), velocity(networks))


def test_new_blocks_learn() -> None:
    """A copy whose way out is zero has a gradient there, because the gates that all blocks share are open."""
    networks = FlowNetworks(TINY)
    alive(networks, 5)
    deeper = FlowNetworks(replace(TINY, depth_single=TINY.depth_single + 1))
    deeper.load_state_dict(deepened(networks.state_dict(), TINY.depth, TINY.depth_single + 1))
    ids = torch.tensor([[1, 2, 3, 4]])
    x0, noise = torch.randn(2, 1, 4, 4 * TINY.z_channels, generator=torch.Generator().manual_seed(1))
    batch = FlowBatch(x0, noise, torch.tensor([0.5]), (2, 2), ids, torch.ones_like(ids), None, ())
    deeper(batch)["velocity"].backward()
    way_out = dict(deeper.transformer.named_parameters())[f"single_blocks.{TINY.depth_single}.linear2.weight"]
    assert way_out.count_nonzero() == 0
    assert way_out.grad is not None
    assert way_out.grad.abs().max() > 0


def test_a_run_starts_deeper_but_not_shallower(tmp_path: Path) -> None:
    autoencoder_run(tmp_path / "autoencoder")
    flow_run(tmp_path / "run", tmp_path / "autoencoder")
    plain = open_networks(tmp_path / "run", TINY)
    deeper = open_networks(tmp_path / "run", replace(TINY, depth_single=TINY.depth_single + 2))
    assert torch.equal(velocity(deeper), velocity(plain))
    with pytest.raises(InvalidSettings, match="has other networks"):
        open_networks(tmp_path / "run", replace(TINY, depth=TINY.depth - 1))
