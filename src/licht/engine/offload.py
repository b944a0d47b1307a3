"""Networks that are larger than the device: every layer of a block comes when it runs, and goes when it has run."""

from typing import Any

import torch
from torch import Tensor, nn

BLOCKS = ("double_blocks", "single_blocks", "layers")
"""Where the blocks of transformer and tower are; everything else stays on the device."""


def stream_blocks(network: nn.Module, device: torch.device) -> int:
    """Keep the blocks of `network` where they are and run it on `device`; returns the bytes that come and go.

    Weights stay in memory (or mapped from their file); the device holds those of one layer at a time.
    """
    streamed = 0
    for name, layer in network.named_modules():
        if name.partition(".")[0] in BLOCKS:
            streamed += _stream(layer, device)
        else:
            _move(layer, device)
    return streamed


def _own(layer: nn.Module) -> dict[str, Tensor]:
    """The tensors of a layer itself, without those of its parts."""
    return {**dict(layer.named_parameters(recurse=False)), **dict(layer.named_buffers(recurse=False))}


def _set(layer: nn.Module, name: str, tensor: Tensor) -> None:
    old = getattr(layer, name)
    setattr(layer, name, nn.Parameter(tensor, requires_grad=False) if isinstance(old, nn.Parameter) else tensor)


def _move(layer: nn.Module, device: torch.device) -> None:
    for name, tensor in _own(layer).items():
        _set(layer, name, tensor.to(device))


def _stream(layer: nn.Module, device: torch.device) -> int:
    kept = _own(layer)
    if not kept:
        return 0

    def fetch(layer: nn.Module, inputs: Any) -> None:  # noqa: ANN401 - whatever the layer takes
        del inputs
        for name, tensor in kept.items():
            _set(layer, name, tensor.to(device, non_blocking=True))

    def release(layer: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ANN401 - whatever the layer takes
        del inputs, output
        for name, tensor in kept.items():
            _set(layer, name, tensor)

    layer.register_forward_pre_hook(fetch)
    layer.register_forward_hook(release, always_call=True)
    return sum(tensor.numel() * tensor.element_size() for tensor in kept.values())
