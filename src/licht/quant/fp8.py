"""8-bit floating point: e4m3 (or e5m2) codes with one scale for the matrix or one for each of its rows.

Shapes: O outputs, I inputs, M rows of the input.
"""

from typing import Final

import torch
from torch import Tensor

from licht.quant.linear import QuantisedLinear
from licht.quant.tables import every_byte, look_up

DTYPES: Final = (torch.float8_e4m3fn, torch.float8_e5m2)
LARGEST: Final = 448.0
"""The largest number of e4m3."""
_SMALLEST_SCALE: Final = 1e-12


def pack_fp8(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """(codes e4m3 (O, I), scale float32 (O,)): each row's largest magnitude becomes 448, as in the official files."""
    scale = weight_OI.float().abs().amax(dim=1).div(LARGEST).clamp_min(_SMALLEST_SCALE)
    codes = (weight_OI.float() / scale[:, None]).clamp(-LARGEST, LARGEST)
    return codes.to(torch.float8_e4m3fn), scale


def unpack_fp8(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """`codes x scale`; the scale has one value, or one for each row."""
    # every code is a bfloat16 number, so nothing is rounded before the product
    values = look_up(codes, every_byte(codes.device).view(codes.dtype).to(torch.bfloat16))
    return (values * scale.float().reshape(-1, 1)).to(dtype)


class Fp8Linear(QuantisedLinear):
    """A matrix in fp8. On GPUs of compute capability 8.9 and later both operands are multiplied in fp8."""

    format = "fp8"

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
        return unpack_fp8(self.codes[start:stop], scale, dtype)

    @property
    def fast(self) -> bool:
        """Whether the GPU multiplies fp8 and the sizes are whole multiples of its tiles."""
        if not self.codes.is_cuda or self.in_features % 16 or self.out_features % 16:
            return False
        return torch.cuda.get_device_capability(self.codes.device) >= (8, 9)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O); where the GPU is fast, each row of `x` is scaled to fp8 too."""
        if not self.fast or x.dtype is not torch.bfloat16:
            return super().forward(x)
        x_MI = x.reshape(-1, self.in_features)
        x_codes, x_scale = pack_fp8(x_MI)
        columns = self.scale.expand(self.out_features).reshape(1, -1).contiguous()
        out = torch._scaled_mm(  # noqa: SLF001 - the public name for this kernel
            x_codes, self.codes.t(), x_scale.reshape(-1, 1), columns, out_dtype=torch.bfloat16
        )
        return out.view(*x.shape[:-1], self.out_features)
