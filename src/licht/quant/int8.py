"""8-bit integers: symmetric codes, one scale for each output row; activations are scaled for each token.

Shapes: O outputs, I inputs, M tokens.
"""

import torch
from torch import Tensor

from licht.quant.linear import QuantisedLinear

_LARGEST = 127.0


def pack_int8(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """(codes int8 (O, I), scale float32 (O,)): each row's largest magnitude becomes 127."""
    scale = weight_OI.float().abs().amax(dim=1).div(_LARGEST).clamp_min(1e-12)
    return (weight_OI.float() / scale[:, None]).round().to(torch.int8), scale


def unpack_int8(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """`codes x scale`; the scale has one value, or one for each row."""
    return codes.to(dtype) * scale.to(dtype).reshape(-1, 1)


def int8_matmul(x_MI: Tensor, codes_OI: Tensor, scale_O: Tensor) -> Tensor:
    """`x @ w.T` (M, O) with both operands in 8-bit integers and 32-bit sums."""
    x_codes, x_scale = pack_int8(x_MI)
    sums = torch._int_mm(x_codes, codes_OI.t())  # noqa: SLF001 - the public name for this kernel
    return (sums.to(x_MI.dtype) * x_scale.to(x_MI.dtype)[:, None]).mul_(scale_O.to(x_MI.dtype))


class Int8Linear(QuantisedLinear):
    """A matrix in int8. Where the device multiplies integers faster than floats, activations are int8 too."""

    format = "int8"

    def __init__(self, codes: Tensor, scale: Tensor, dtype: torch.dtype) -> None:
        """`scale` has one element, or one for each row."""
        super().__init__(codes.shape[0], codes.shape[1], dtype)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale.float().reshape(-1))
        self.codes: Tensor
        self.scale: Tensor

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Dequantised rows."""
        scale = self.scale if self.scale.numel() == 1 else self.scale[start:stop]
        return unpack_int8(self.codes[start:stop], scale, dtype)

    @property
    def fast(self) -> bool:
        """Whether integers are multiplied: on a GPU, and on processors with VNNI but without matrix tiles.

        Processors with tiles (AMX) multiply bfloat16 faster than torch multiplies integers there; see docs/speed.md.
        """
        if self.codes.is_cuda:
            return self.in_features % 8 == 0 and self.out_features % 8 == 0
        cpu = torch.cpu.get_capabilities()
        return self.codes.device.type == "cpu" and bool(cpu.get("avx512_vnni")) and not cpu.get("amx_tile")

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        x_MI = x.reshape(-1, self.in_features)
        if not self.fast or x_MI.shape[0] <= 16:  # the kernel of GPUs wants more rows
            return super().forward(x)
        scale = self.scale.expand(self.out_features)
        return int8_matmul(x_MI, self.codes, scale).view(*x.shape[:-1], self.out_features)
