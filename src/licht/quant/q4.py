"""4-bit integers in groups of 32 with a float16 scale: the numbers of GGUF's Q4_0, scales apart from codes.

Shapes: O outputs, I inputs, G groups of a row, S 32 elements of a group.
"""

from typing import Final

import torch
from torch import Tensor

from licht.quant.linear import QuantisedLinear
from licht.quant.tables import expanded

GROUP: Final = 32
_SHRINKS: Final = (1.0, 0.9)
"""Scales that are tried for each group, in parts of the one that represents its largest value exactly."""


def pack_q4(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """(codes uint8 (O, I / 2), scale float16 (O, I / 32)).

    Value = (code - 8) x scale. In each group of 32 the low nibbles are its first half, the high nibbles its second. Of
    a few scales the one with the smallest squared error is taken. Raises `ValueError` if I is no multiple of 32.
    """
    if weight_OI.shape[1] % GROUP:
        raise ValueError(f"{weight_OI.shape[1]} columns are no multiple of {GROUP}")
    groups_OGS = weight_OI.float().unflatten(1, (-1, GROUP))
    largest = groups_OGS.gather(2, groups_OGS.abs().argmax(dim=2, keepdim=True)) / -8
    best_codes = torch.zeros_like(groups_OGS, dtype=torch.uint8)
    best_scale = torch.zeros_like(largest, dtype=torch.float16)
    best_error = torch.full_like(largest, torch.inf)
    for shrink in _SHRINKS:
        scale = (largest * shrink).half()
        safe = torch.where(scale == 0, 1.0, scale.float())
        codes = (groups_OGS / safe).round_().add_(8).clamp_(0, 15)
        error = ((codes - 8) * scale.float() - groups_OGS).square_().sum(dim=2, keepdim=True)
        better = error < best_error
        best_codes = torch.where(better, codes.to(torch.uint8), best_codes)
        best_scale = torch.where(better, scale, best_scale)
        best_error = torch.where(better, error, best_error)
    low, high = best_codes.chunk(2, dim=2)
    return (low | high << 4).flatten(1), best_scale.squeeze(2)


def unpack_q4(codes: Tensor, scale_OG: Tensor, dtype: torch.dtype) -> Tensor:
    """(O, I) values of packed codes."""
    rows, groups = scale_OG.shape
    packed = codes.view(rows, groups, GROUP // 2)
    values = torch.empty(rows, groups, 2, GROUP // 2, dtype=dtype, device=codes.device)
    values[:, :, 0].copy_(packed & 15)
    values[:, :, 1].copy_(packed >> 4)
    return values.sub_(8).view(rows, groups * GROUP).mul_(expanded(scale_OG.to(dtype), GROUP))


class Q4Linear(QuantisedLinear):
    """A matrix in 4-bit integers."""

    format = "q4"

    def __init__(self, codes: Tensor, scale: Tensor, dtype: torch.dtype) -> None:
        """What `pack_q4` gives."""
        super().__init__(codes.shape[0], 2 * codes.shape[1], dtype)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        self.codes: Tensor
        self.scale: Tensor

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Dequantised rows."""
        return unpack_q4(self.codes[start:stop], self.scale[start:stop], dtype)
