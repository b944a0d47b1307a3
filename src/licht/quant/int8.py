"""8-bit integers: symmetric codes, one scale for each output row; activations are scaled for each token.

Shapes: O outputs, I inputs, M tokens.
"""

from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from licht.model.precision import processor_has
from licht.quant.linear import QuantisedLinear
from licht.quant.pages import mappings, own_pages

_LARGEST: Final = 127.0
_CACHED: Final = 3 * 2**15
"""So many numbers of a processor's activations are quantised at a time."""
_BITS: Final = MappingProxyType({torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32})
_UNITS: Final = ("amx_int8", "avx512_vnni", "avx_vnni")


def pack_int8(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """(codes int8 (O, I), scale float32 (O,)): each row's largest magnitude becomes 127."""
    scale = weight_OI.float().abs().amax(dim=1).div(_LARGEST).clamp_min(1e-12)
    return (weight_OI.float() / scale[:, None]).round().to(torch.int8), scale


def unpack_int8(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """`codes x scale`; the scale has one value, or one for each row."""
    return codes.to(dtype) * scale.to(dtype).reshape(-1, 1)


def pack_tokens(x_MI: Tensor) -> tuple[Tensor, Tensor]:
    """(codes int8 (M, I), scale (M, 1) in the dtype of `x`): each token's largest magnitude becomes 127.

    On a processor some tokens at a time, so that what lies between is read from its caches.
    """
    step = max(1, _CACHED // x_MI.shape[1]) if x_MI.device.type == "cpu" else max(1, x_MI.shape[0])
    codes = torch.empty(x_MI.shape, dtype=torch.int8, device=x_MI.device)
    scale = x_MI.new_empty(x_MI.shape[0], 1)
    numbers = torch.empty(min(step, x_MI.shape[0]), x_MI.shape[1], device=x_MI.device)
    for x, part, one in zip(x_MI.split(step), codes.split(step), scale.split(step), strict=True):
        one.copy_((_largest(x).float() / _LARGEST).clamp_min_(1e-12))
        # by the rounded scale, which may be a little too small for the largest value
        scaled = numbers[: len(x)].copy_(x).mul_(one.float().reciprocal())
        part.copy_(scaled.round_().clamp_(-_LARGEST, _LARGEST))
    return codes, scale


def _largest(x_MI: Tensor) -> Tensor:
    """Largest magnitude (M, 1) of each row. Without its sign bit a float is in the order of its bits as an integer.

    A processor finds the largest integer much sooner than the largest bfloat16, which it must also make positive first.
    """
    if x_MI.dtype not in _BITS:
        return x_MI.abs().amax(dim=1, keepdim=True)
    integer = _BITS[x_MI.dtype]
    return (x_MI.view(integer) & torch.iinfo(integer).max).amax(dim=1, keepdim=True).view(x_MI.dtype)


def int8_matmul(x_MI: Tensor, codes_OI: Tensor, scale_O: Tensor) -> Tensor:
    """`x @ w.T` (M, O) with both operands in 8-bit integers and 32-bit sums."""
    x_codes, x_scale = pack_tokens(x_MI)
    sums = torch._int_mm(x_codes, codes_OI.t())  # noqa: SLF001 - the public name for this kernel
    return (sums.float() * x_scale.float()).mul_(scale_O).to(x_MI.dtype)


def turned(codes_OI: Tensor) -> Tensor:
    """The codes (I, O) as oneDNN multiplies them fastest: its own kind of tensor, read back by `to_dense`."""
    with own_pages():
        return codes_OI.contiguous().to_mkldnn().transpose(0, 1)


def onednn_matmul(x_MI: Tensor, turned_IO: Tensor, scale_O: Tensor) -> Tensor:
    """`int8_matmul` by the processor's matrix or vector units; sums are scaled before they leave the registers."""
    x_codes, x_scale = pack_tokens(x_MI)
    zeros = torch.zeros(scale_O.shape, dtype=torch.int8)
    out: Tensor = torch.ops.onednn.qlinear_pointwise(
        x_codes, 1.0, 0, turned_IO, scale_O, zeros, None, 1.0, 0, x_MI.dtype, "none", [], ""
    )
    return out * x_scale  # in place, bfloat16 in memory takes twice as long


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
        self.turns = True
        """Whether a processor may keep the codes in another arrangement, in memory of their own."""
        self._turned: Tensor | None = None

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Dequantised rows."""
        codes = self.codes if self._turned is None else self._turned.to_dense().t()
        scale = self.scale if self.scale.numel() == 1 else self.scale[start:stop]
        return unpack_int8(codes[start:stop], scale, dtype)

    @property
    def memory_bytes(self) -> int:
        """Bytes of everything that is stored."""
        return super().memory_bytes + (0 if self._turned is None else self.out_features * self.in_features)

    @property
    def fast(self) -> bool:
        """Whether integers are multiplied: on GPUs, and on processors with AMX or VNNI; see docs/speed.md."""
        if self.codes.is_cuda:
            return self.in_features % 8 == 0 and self.out_features % 8 == 0
        return self.codes.device.type == "cpu" and processor_has(_UNITS)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        x_MI = x.reshape(-1, self.in_features)
        if not self.fast or x_MI.shape[0] <= 16:  # the kernel of GPUs wants more rows
            return super().forward(x)
        scale = self.scale.expand(self.out_features).contiguous()
        if x.is_cuda or not self.turns:
            out = int8_matmul(x_MI, self.codes, scale)
        else:
            out = onednn_matmul(x_MI, self._turned_codes(), scale)
        return out.view(*x.shape[:-1], self.out_features)

    def _turned_codes(self) -> Tensor:
        """The codes as a processor multiplies them: made by the first use, kept instead of those that were stored."""
        if self._turned is None:
            self._turned = turned(self.codes)
            mappings().let_go([self.codes])
            self.codes = self.codes.new_empty(0)
        return self._turned
