"""4-bit codes of a table with a scale for every block of the flattened matrix: bitsandbytes' nf4 and fp4.

Shapes: O outputs, I inputs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from licht.quant.linear import QuantisedLinear
from licht.quant.tables import look_up, pairs


@dataclass(frozen=True, slots=True)
class Nested:
    """Block scales that are themselves stored as codes of a table, with a scale for every `block` of them."""

    table: Tensor
    scale: Tensor
    block: int
    offset: float


def block_scales(stored: Tensor, nested: Nested | None) -> Tensor:
    """One float32 scale for each block."""
    if nested is None:
        return stored.float()
    scale = nested.scale.float().repeat_interleave(nested.block)[: stored.numel()]
    return nested.table.float()[stored.int()] * scale + nested.offset


def unpack_nf4(codes: Tensor, table: Tensor, scale: Tensor, block: int) -> Tensor:
    """Flat float32 values: the first of two lies in the high nibble."""
    values = look_up(codes, pairs(table.float(), low_first=False))
    return (values.view(-1, block) * scale[:, None]).flatten()


class Nf4Linear(QuantisedLinear):
    """A matrix as bitsandbytes stores it, dequantised for every use."""

    format = "nf4"

    def __init__(self, codes: Tensor, table: Tensor, scale: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> None:
        """`codes` hold two values a byte, `scale` one value for every block of the flattened matrix."""
        super().__init__(*shape, dtype)
        self.block = codes.numel() * 2 // scale.numel()
        for name, tensor in (("codes", codes.flatten()), ("table", table.float()), ("scale", scale.float())):
            self.register_buffer(name, tensor)
        self.codes: Tensor
        self.table: Tensor
        self.scale: Tensor

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Dequantised rows: whole blocks around them, then cut."""
        first, last = start * self.in_features, stop * self.in_features
        begin, end = first // self.block, -(-last // self.block)
        half = self.block // 2
        values = unpack_nf4(self.codes[begin * half : end * half], self.table, self.scale[begin:end], self.block)
        offset = begin * self.block
        return values[first - offset : last - offset].view(stop - start, self.in_features).to(dtype)
