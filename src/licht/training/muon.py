"""Muon (Jordan et al., 2024) for matrices and for the kernels of convolutions, shared among processes.

torch's own Muon takes no kernels, every process repeats all of it (with two processes on two cores, a quarter of a step
of the flow model), and it knows bfloat16 only.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor, nn

from licht.model.precision import multiplies_bfloat16
from licht.training.shard import is_spread

_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
_ITERATIONS: Final = 5


def orthogonalised(matrix: Tensor) -> Tensor:
    """About the nearest matrix whose singular values are all one, by Newton-Schulz iterations.

    It is in bfloat16, or in float32 where the device multiplies that faster.
    """
    a, b, c = _COEFFICIENTS
    x = matrix.to(_number_format(matrix.device))
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        product = x @ x.T
        x = torch.addmm(x, torch.addmm(product, product, product, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def _number_format(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32


class SharedMuon(torch.optim.Optimizer):
    """Matrices, or kernels (out, in, height, width) as matrices of `out` rows; updates as large as AdamW's would be.

    Processes must have equal gradients, as DDP gives them. Each orthogonalises its share and gets the others'.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        """Nesterov momentum; decoupled decay."""
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override] # no closure, so no loss to return
        """One step along the orthogonalised momentum."""
        del closure
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            ahead = [self._ahead(parameter, parameter.grad, group["momentum"]) for parameter in moved]
            for parameter, update in zip(moved, _orthogonalised_by_all(ahead), strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                scale = 0.2 * max(update.shape) ** 0.5
                parameter.add_(update.view_as(parameter).to(parameter.dtype), alpha=-group["lr"] * scale)

    def _ahead(self, parameter: nn.Parameter, gradient: Tensor, momentum: float) -> Tensor:
        """The momentum after this gradient, and a step of it ahead (Nesterov), as a matrix."""
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum_buffer"], momentum).flatten(1)


def _orthogonalised_by_all(matrices: Sequence[Tensor]) -> list[Tensor]:
    """All of them, in order; each process does its share of the work, or of every matrix that is spread over them."""
    count = dist.get_world_size() if dist.is_initialized() else 1
    if count == 1 or not matrices or is_spread(matrices[0]):
        return [orthogonalised(matrix) for matrix in matrices]
    owners, me = shares([tuple(matrix.shape) for matrix in matrices], count), dist.get_rank()
    device = matrices[0].device
    sizes = [sum(m.numel() for m, owner in zip(matrices, owners, strict=True) if owner == n) for n in range(count)]
    own = torch.zeros(max(sizes), dtype=_number_format(device), device=device)
    mine = [orthogonalised(m).flatten() for m, owner in zip(matrices, owners, strict=True) if owner == me]
    if mine:
        torch.cat(mine, out=own[: sizes[me]])
    every = [torch.empty_like(own) for _ in range(count)]
    # as bytes, because not every backend knows bfloat16
    dist.all_gather([each.view(torch.uint8) for each in every], own.view(torch.uint8))
    taken, found = [0] * count, []
    for matrix, owner in zip(matrices, owners, strict=True):
        found.append(every[owner][taken[owner] : taken[owner] + matrix.numel()].view(matrix.shape))
        taken[owner] += matrix.numel()
    return found


def shares(shapes: Sequence[tuple[int, ...]], count: int) -> list[int]:
    """Which of `count` processes takes each matrix: the costliest first, each to whoever has least to do."""
    cost = [rows * columns * min(rows, columns) for rows, columns in shapes]
    loads, owners = [0] * count, [0] * len(shapes)
    for number in sorted(range(len(shapes)), key=lambda number: -cost[number]):
        owners[number] = min(range(count), key=lambda process: loads[process])
        loads[owners[number]] += cost[number]
    return owners
