"""Exponential moving average of weights."""

import torch
from torch import Tensor, nn


class EMA:
    """A float32 average of every parameter, and a copy of every buffer."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start at the current weights."""
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the current weights; early on faster, so that the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, tensor in module.state_dict().items():
            mean = self.tensors[name]
            if mean.is_floating_point():
                mean.lerp_(tensor.detach().to(mean.dtype), 1 - decay)
            else:
                mean.copy_(tensor)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the module's weights with the averages; a second call undoes it."""
        current: dict[str, Tensor] = module.state_dict()
        for name, tensor in current.items():
            held = tensor.detach().clone()
            tensor.copy_(self.tensors[name])
            self.tensors[name].copy_(held)
