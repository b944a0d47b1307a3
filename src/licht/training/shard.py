"""Weights, gradients, averages and the optimisers' state spread over processes (FSDP2: `torch.distributed.fsdp`)."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor
    from typing_extensions import TypeIs

# The parts of torch that are imported inside of functions take a second, and most runs spread nothing.

_OTHER_WAYS = ("reference_cache", "forward_references")
"""Methods that use a module's weights without going through its `forward`."""


def shard(module: nn.Module, device: torch.device, processes: int) -> None:
    """Spread the parameters of `module` over all processes, in place; names stay as they are.

    Every block is gathered by itself when it is needed, and so is every network around blocks: neither is ever whole
    on one process together with the others. Optimisers must be built afterwards.
    """
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh(device.type, (processes,))
    networks = [child for child in module.modules() if _has_blocks(child) and child is not module]
    for network in [*networks, module]:
        for blocks in network.children():
            if isinstance(blocks, nn.ModuleList):
                for block in blocks:
                    _shard_one(block, mesh)
    for network in networks:
        _shard_one(network, mesh)
    _shard_one(module, mesh)


def _has_blocks(module: nn.Module) -> bool:
    return any(isinstance(child, nn.ModuleList) for child in module.children())


def _shard_one(module: nn.Module, mesh: "DeviceMesh") -> None:
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    fully_shard(module, mesh=mesh)
    for name in _OTHER_WAYS:
        if hasattr(module, name):
            register_fsdp_forward_method(module, name)


def is_spread(tensor: Tensor) -> "TypeIs[DTensor]":
    """Whether this process holds a part of the tensor only."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """The tensor from the parts of all processes, who must all ask; a tensor that is not spread is its own whole."""
    if not is_spread(tensor):
        return tensor
    found: Tensor = tensor.full_tensor()
    return found


def spread_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole `tensor`, the same in every process, spread as `like` is; scalars beside it stay whole."""
    if not is_spread(like) or tensor.shape != like.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
