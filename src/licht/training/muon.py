"""Muon for the kernels of convolutions, which torch's own Muon does not take (Jordan et al., 2024)."""

from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor, nn

_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
_ITERATIONS: Final = 5


def orthogonalised(matrix: Tensor) -> Tensor:
    """About the nearest matrix whose singular values are all one, by Newton-Schulz iterations in bfloat16."""
    a, b, c = _COEFFICIENTS
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        product = x @ x.T
        x = a * x + (b * product + c * product @ product) @ x
    found: Tensor = (x.T if tall else x).to(matrix.dtype)
    return found


class KernelMuon(torch.optim.Optimizer):
    """Each kernel (out, in, height, width) as a matrix of `out` rows; updates as large as AdamW's would be."""

    def __init__(self, kernels: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        """Nesterov momentum."""
        super().__init__(kernels, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override] # no closure, so no loss to return
        """One step along the orthogonalised momentum."""
        del closure
        for group in self.param_groups:
            for kernel in group["params"]:
                if kernel.grad is None:
                    continue
                state = self.state[kernel]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(kernel)
                state["momentum_buffer"].lerp_(kernel.grad, 1 - group["momentum"])
                ahead = kernel.grad.lerp(state["momentum_buffer"], group["momentum"]).flatten(1)
                scale = 0.2 * max(ahead.shape) ** 0.5
                kernel.add_(orthogonalised(ahead).view_as(kernel), alpha=-group["lr"] * scale)
