"""What every quantised linear layer is: weights that are made readable a few rows at a time.

Shapes: O outputs, I inputs.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLICE_ELEMENTS: Final = 16 * 2**20
"""So many weights are dequantised at a time: enough for a fast matrix product, little beside the model."""

CACHED_ELEMENTS: Final = 2**17
"""A processor makes so many of them in one go."""


class QuantisedLinear(nn.Module, ABC):
    """A linear map without bias whose matrix is stored in a small format. `dtype` is what it computes in."""

    format: ClassVar[str]
    """Its name on the command line, in reports and in files."""

    def __init__(self, out_features: int, in_features: int, dtype: torch.dtype) -> None:
        """Subclasses register the stored tensors as buffers."""
        super().__init__()
        self.out_features, self.in_features, self.dtype = out_features, in_features, dtype

    @abstractmethod
    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Rows `start` to `stop` of the matrix, dequantised."""

    @property
    def weight(self) -> Tensor:
        """The whole matrix (O, I), dequantised on every access."""
        return self._dequantised(0, self.out_features, self.dtype)

    @property
    def memory_bytes(self) -> int:
        """Bytes of everything that is stored."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers())

    @property
    def fast(self) -> bool:
        """Whether the device computes in this format; elsewhere weights are dequantised for every use."""
        return False

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O): dequantise some rows, multiply, go on."""
        step = max(1, SLICE_ELEMENTS // self.in_features)
        if step >= self.out_features:
            return F.linear(x, self._dequantised(0, self.out_features, x.dtype))
        out = x.new_empty(*x.shape[:-1], self.out_features)
        for start in range(0, self.out_features, step):
            stop = min(start + step, self.out_features)
            out[..., start:stop] = F.linear(x, self._dequantised(start, stop, x.dtype))
        return out

    def _dequantised(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Rows `start` to `stop`; on a processor made piece by piece, each small enough for its caches."""
        if next(self.buffers()).device.type != "cpu":
            return self.rows(start, stop, dtype)
        step = max(1, CACHED_ELEMENTS // self.in_features)
        out = torch.empty(stop - start, self.in_features, dtype=dtype)
        for first in range(start, stop, step):
            last = min(first + step, stop)
            out[first - start : last - start] = self.rows(first, last, dtype)
        return out

    def extra_repr(self) -> str:
        """What is printed of it."""
        return f"{self.format}, {self.in_features} -> {self.out_features}"


class StackedLayers(nn.Module):
    """A linear map whose output rows lie in several layers, as in quantised files with separate q, k and v."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        """Their outputs follow one another."""
        super().__init__()
        self.layers = nn.ModuleList(layers)

    @property
    def weight(self) -> Tensor:
        """The fused (O, I) matrix, dequantised on every access."""
        weights = [layer.weight for layer in self.layers]
        return torch.cat([weight for weight in weights if isinstance(weight, Tensor)])

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        return torch.cat([layer(x) for layer in self.layers], dim=-1)
