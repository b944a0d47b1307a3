"""The block formats of GGUF files, as the ggml library defines them: bytes to values.

A matrix is rows of blocks. A block of the simple formats has 32 values, one of the K formats 256 in sub-blocks with
6-bit scales. Shapes: N blocks, B bytes of a block.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from licht.quant.linear import QuantisedLinear

_SUPER: Final = 256


def _half(bytes_NB: Tensor) -> Tensor:
    """(N, n) float32 of 2 n bytes of little-endian float16."""
    return bytes_NB.contiguous().view(torch.float16).float()


def _bits(bytes_N4: Tensor) -> Tensor:
    """(N, 32) bits of 4 bytes, lowest first."""
    shifts = torch.arange(8, dtype=torch.uint8, device=bytes_N4.device)
    bits: Tensor = bytes_N4[:, :, None] >> shifts & 1
    return bits.flatten(1)


def _nibbles(bytes_NB: Tensor) -> Tensor:
    """(N, 2 B): all low nibbles, then all high ones."""
    return torch.cat([bytes_NB & 15, bytes_NB >> 4], dim=1)


def _q8_0(raw: Tensor) -> Tensor:
    return raw[:, 2:].contiguous().view(torch.int8).float() * _half(raw[:, :2])


def _q4_0(raw: Tensor) -> Tensor:
    return (_nibbles(raw[:, 2:]).float() - 8) * _half(raw[:, :2])


def _q5_0(raw: Tensor) -> Tensor:
    codes = _nibbles(raw[:, 6:]) | _bits(raw[:, 2:6]) << 4
    return (codes.float() - 16) * _half(raw[:, :2])


def _scales_and_minima(raw_N12: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 8) 6-bit scales and minima of the eight sub-blocks, out of 12 bytes."""
    low, middle, high = raw_N12.split(4, dim=1)
    scales = torch.cat([low & 63, (high & 15) | (low >> 6 << 4)], dim=1)
    minima = torch.cat([middle & 63, (high >> 4) | (middle >> 6 << 4)], dim=1)
    return scales.float(), minima.float()


def _affine(raw: Tensor, codes_N8S: Tensor) -> Tensor:
    """`d scale code - dmin minimum` for the two K formats that have both."""
    scales, minima = _scales_and_minima(raw[:, 4:16])
    d, dmin = _half(raw[:, :2]), _half(raw[:, 2:4])
    return (codes_N8S.float() * (d * scales)[:, :, None] - (dmin * minima)[:, :, None]).flatten(1)


def _four_by_two(bytes_N128: Tensor) -> Tensor:
    """(N, 8, 32): of every 32 bytes the low nibbles are one sub-block, the high ones the next."""
    quarters = bytes_N128.unflatten(1, (4, 32))
    return torch.stack([quarters & 15, quarters >> 4], dim=2).flatten(1, 2)


def _q4_k(raw: Tensor) -> Tensor:
    return _affine(raw, _four_by_two(raw[:, 16:]))


def _q5_k(raw: Tensor) -> Tensor:
    shifts = torch.arange(8, dtype=torch.uint8, device=raw.device)[:, None]
    fifth = raw[:, None, 16:48] >> shifts & 1
    return _affine(raw, _four_by_two(raw[:, 48:]) | fifth << 4)


def _q6_k(raw: Tensor) -> Tensor:
    """Of every half of 128 values, 64 bytes hold the low four bits and 32 bytes the high two."""
    low = raw[:, :128].unflatten(1, (2, 1, 64))
    low = torch.cat([low & 15, low >> 4], dim=2).flatten(1).unflatten(1, (2, 4, 32))
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8, device=raw.device)[:, None]
    high = raw[:, 128:192].unflatten(1, (2, 1, 32)) >> shifts & 3
    codes: Tensor = (low | high << 4).flatten(1).unflatten(1, (16, 16)).float() - 32
    scales = raw[:, 192:208].contiguous().view(torch.int8).float() * _half(raw[:, 208:])
    return (codes * scales[:, :, None]).flatten(1)


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """One format: `values` values in `stored` bytes, and how to read them."""

    name: str
    values: int
    stored: int
    read: Callable[[Tensor], Tensor]


BLOCK_FORMATS: Final[Mapping[str, BlockFormat]] = MappingProxyType(
    {
        form.name: form
        for form in (
            BlockFormat("Q4_0", 32, 18, _q4_0),
            BlockFormat("Q5_0", 32, 22, _q5_0),
            BlockFormat("Q8_0", 32, 34, _q8_0),
            BlockFormat("Q4_K", _SUPER, 144, _q4_k),
            BlockFormat("Q5_K", _SUPER, 176, _q5_k),
            BlockFormat("Q6_K", _SUPER, 210, _q6_k),
        )
    }
)


def unpack_gguf(raw: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    """(O, I) values of (O, bytes) rows of blocks in the format `name`."""
    form = BLOCK_FORMATS[name]
    return form.read(raw.reshape(-1, form.stored)).view(raw.shape[0], -1).to(dtype)


class GgufLinear(QuantisedLinear):
    """A matrix in one of GGUF's block formats, dequantised for every use."""

    format = "gguf"

    def __init__(self, raw: Tensor, name: str, dtype: torch.dtype) -> None:
        """`raw` is (O, bytes of a row) uint8."""
        form = BLOCK_FORMATS[name]
        super().__init__(raw.shape[0], raw.shape[1] // form.stored * form.values, dtype)
        self.name = name
        self.register_buffer("raw", raw)
        self.raw: Tensor

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Dequantised rows."""
        return unpack_gguf(self.raw[start:stop], self.name, dtype)
