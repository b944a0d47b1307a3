"""Linear layers that are stored otherwise than as one matrix."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StackedLinear(nn.Module):
    """A linear map whose output rows lie in several matrices, as they do in files with separate q, k and v.

    It lets such a file be used where it lies, without a fused copy in memory. `weight` is the fused matrix.
    """

    def __init__(self, blocks: Sequence[Tensor]) -> None:
        """`blocks` are (rows, in) matrices of one dtype; their rows are the output in order."""
        super().__init__()
        self.blocks = nn.ParameterList(nn.Parameter(block, requires_grad=False) for block in blocks)

    @property
    def weight(self) -> Tensor:
        """The fused (out, in) matrix, built on every access."""
        return torch.cat(list(self.blocks))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return torch.cat([F.linear(x, block) for block in self.blocks], dim=-1)
