"""Which formats weights can be quantised to, and which layers are worth it."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from licht.quant.fp8 import Fp8Linear, pack_fp8
from licht.quant.int8 import Int8Linear, pack_int8
from licht.quant.linear import SLICE_ELEMENTS, QuantisedLinear
from licht.quant.nvfp4 import Nvfp4Linear, pack_nvfp4, whole_scale
from licht.quant.q4 import Q4Linear, pack_q4

_IN_BLOCKS: Final = re.compile(r"(double_blocks|single_blocks|layers)\.\d+\..+")
_OUTSIDE: Final = re.compile(r"(.+_modulation(_img|_txt)?\.lin|txt_in|(time|guidance)_in\.(in|out)_layer)")
_MULTIPLE: Final = 32


def _two(pack: Callable[[Tensor], tuple[Tensor, Tensor]], weight: Tensor) -> tuple[Tensor, Tensor]:
    """What `pack` makes of a matrix whose rows are independent, some rows at a time: temporaries stay small."""
    step = max(1, SLICE_ELEMENTS // weight.shape[1])
    parts = [pack(rows) for rows in weight.split(step)]
    return torch.cat([codes for codes, _ in parts]), torch.cat([scale for _, scale in parts])


def _fp8(weight: Tensor, dtype: torch.dtype) -> QuantisedLinear:
    return Fp8Linear(*_two(pack_fp8, weight), dtype)


def _int8(weight: Tensor, dtype: torch.dtype) -> QuantisedLinear:
    return Int8Linear(*_two(pack_int8, weight), dtype)


def _q4(weight: Tensor, dtype: torch.dtype) -> QuantisedLinear:
    return Q4Linear(*_two(pack_q4, weight), dtype)


def _nvfp4(weight: Tensor, dtype: torch.dtype) -> QuantisedLinear:
    whole = whole_scale(weight)

    def pack(rows: Tensor) -> tuple[Tensor, Tensor]:
        codes, scale, _ = pack_nvfp4(rows, whole)
        return codes, scale

    codes, scale = _two(pack, weight)
    return Nvfp4Linear(codes, scale, whole, dtype)


QUANTISERS: Final[Mapping[str, Callable[[Tensor, torch.dtype], QuantisedLinear]]] = MappingProxyType(
    {"fp8": _fp8, "int8": _int8, "q4": _q4, "nvfp4": _nvfp4}
)
"""Format -> a function from a matrix (O, I) and the dtype to compute in to a layer."""


def worth_quantising(layer: str, shape: tuple[int, ...]) -> bool:
    """Whether the layer of this official name is quantised: matrices of the blocks, where nearly all weights are.

    Embedders, modulation and the last layer are small and steer everything else; they keep their precision.
    """
    return _fits(shape) and _IN_BLOCKS.fullmatch(layer) is not None


def worth_storing_small(layer: str, shape: tuple[int, ...]) -> bool:
    """Whether the layer of this official name is large for one outside of blocks: modulation, text and time embedders.

    In a network as small as the built-in ones they are a fifth of all weights.
    """
    return _fits(shape) and _OUTSIDE.fullmatch(layer) is not None


def _fits(shape: tuple[int, ...]) -> bool:
    """Whether every format can store a tensor of this shape."""
    return len(shape) == 2 and shape[1] % _MULTIPLE == 0


def quantise(weight_OI: Tensor, form: str, dtype: torch.dtype) -> QuantisedLinear:
    """The layer of a matrix in the format `form`."""
    return QUANTISERS[form](weight_OI, dtype)
