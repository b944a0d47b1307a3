import copy

import torch

from licht.training.flow import FlowBatch, FlowNetworks
from licht.training.fuse import fuse_blocks
from tests.training.runs import TINY, alive


def batch_of(text_length: int, references: int) -> FlowBatch:
    generator = torch.Generator().manual_seed(text_length)
    channels = 4 * TINY.z_channels
    latents = torch.randn(3, 2, 4, channels, generator=generator)
    return FlowBatch(
        x0_BLC=latents[0],
        noise_BLC=latents[1],
        t_B=torch.tensor([0.2, 0.8]),
        grid=(2, 2),
        ids_BT=torch.randint(0, 100, (2, text_length), generator=generator),
        attended_BT=torch.ones(2, text_length, dtype=torch.bool),
        references_BRC=latents[2] if references else None,
        reference_grids=((2, 2),) * references,
    )


def test_fused_blocks_learn_the_same_at_every_length() -> None:
    networks = FlowNetworks(TINY)
    alive(networks)
    fused = copy.deepcopy(networks)
    fuse_blocks(fused, backend="eager")  # traced as usual, without the minutes of a compiler
    for text_length, references in ((8, 0), (12, 0), (12, 1)):
        losses = [networks_(batch_of(text_length, references))["velocity"] for networks_ in (networks, fused)]
        torch.testing.assert_close(losses[1], losses[0])
        torch.autograd.backward(losses)
    plain, compiled = dict(networks.named_parameters()), dict(fused.named_parameters())
    assert plain.keys() == compiled.keys() == fused.state_dict().keys()
    for name, parameter in plain.items():
        torch.testing.assert_close(compiled[name].grad, parameter.grad, msg=name)
