"""NVFP4: 4-bit floating point (E2M1) in groups of 16, an e4m3 scale for each group, a float32 scale for the matrix.

Two arrangements are in use. ModelOpt stores the first of two values in the low nibble and the group scales row by row.
ComfyUI, and with it the official FLUX.2 files, stores the first value in the high nibble and the group scales in the
tiles of 128 x 4 that NVIDIA's kernels read. Shapes: O outputs, I inputs, G groups of a row.
"""

from typing import Final

import torch
from torch import Tensor

from licht.quant.linear import QuantisedLinear
from licht.quant.tables import expanded, look_up, pairs

GROUP: Final = 16
_MAGNITUDES: Final = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_VALUES: Final = (*_MAGNITUDES, *(-size for size in _MAGNITUDES))
_MIDDLES: Final = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
"""Where rounding goes from one magnitude to the next."""
_LARGEST: Final = 6.0
_LARGEST_SCALE: Final = 448.0
_TILE: Final = (128, 4)


def whole_scale(weight_OI: Tensor) -> Tensor:
    """The matrix scale: the largest magnitude becomes 6 x 448."""
    return (weight_OI.abs().amax().float() / (_LARGEST * _LARGEST_SCALE)).clamp_min(1e-30)


def pack_nvfp4(weight_OI: Tensor, whole: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """(codes uint8 (O, I / 2), group scales e4m3 (O, I / 16), matrix scale float32 ()), arranged as ModelOpt does.

    `whole` is the matrix scale where the rows are part of a larger matrix. Raises `ValueError` if I is no multiple of 16.
    """
    if weight_OI.shape[1] % GROUP:
        raise ValueError(f"{weight_OI.shape[1]} columns are no multiple of {GROUP}")
    weight = weight_OI.float()
    whole = whole_scale(weight) if whole is None else whole
    groups = weight.unflatten(1, (-1, GROUP))
    scale = (groups.abs().amax(dim=2) / _LARGEST / whole).clamp(2**-9, _LARGEST_SCALE).to(torch.float8_e4m3fn)
    scaled = (groups / (scale.float() * whole)[:, :, None]).flatten(1)
    codes: Tensor = torch.bucketize(scaled.abs(), scaled.new_tensor(_MIDDLES)).to(torch.uint8)
    codes |= (scaled < 0).to(torch.uint8) << 3
    packed: Tensor = codes[:, ::2] | codes[:, 1::2] << 4
    return packed, scale, whole


def unpack_nvfp4(codes: Tensor, scale_OG: Tensor, whole: Tensor, dtype: torch.dtype) -> Tensor:
    """(O, I) values, from codes and scales arranged as ModelOpt does."""
    values = look_up(codes, pairs(torch.tensor(_VALUES, dtype=torch.bfloat16, device=codes.device), low_first=True))
    # at most six significant bits, so this product is exact
    values.mul_(expanded(scale_OG.to(torch.bfloat16), GROUP))
    return values.to(dtype).mul_(whole.float())


def swap_nibbles(codes: Tensor) -> Tensor:
    """From one order of two values in a byte to the other."""
    swapped: Tensor = codes << 4 | codes >> 4
    return swapped


def tiled_shape(rows: int, groups: int) -> tuple[int, int]:
    """The shape of group scales in tiles: both sides padded to whole tiles."""
    return -(-rows // _TILE[0]) * _TILE[0], -(-groups // _TILE[1]) * _TILE[1]


def tile_scales(scale_OG: Tensor) -> Tensor:
    """Group scales in tiles of 128 x 4: row r of a tile lies at line r % 32, place r // 32 (padded with zeros)."""
    rows, groups = scale_OG.shape
    padded = torch.zeros(tiled_shape(rows, groups), dtype=torch.uint8, device=scale_OG.device)
    padded[:rows, :groups] = scale_OG.view(torch.uint8)
    tiles = padded.view(padded.shape[0] // 128, 4, 32, padded.shape[1] // 4, 4).permute(0, 3, 2, 1, 4)
    return tiles.reshape(padded.shape).view(scale_OG.dtype)


def untile_scales(tiled: Tensor, rows: int, groups: int) -> Tensor:
    """Inverse of `tile_scales`; the padding is cut off."""
    lines, places = tiled_shape(rows, groups)
    tiles = tiled.view(torch.uint8).reshape(lines // 128, places // 4, 32, 4, 4).permute(0, 3, 2, 1, 4)
    return tiles.reshape(lines, places)[:rows, :groups].contiguous().view(tiled.dtype)


class Nvfp4Linear(QuantisedLinear):
    """A matrix in NVFP4, dequantised for every use."""

    format = "nvfp4"

    def __init__(self, codes: Tensor, scale: Tensor, whole: Tensor, dtype: torch.dtype) -> None:
        """What `pack_nvfp4` gives."""
        super().__init__(codes.shape[0], 2 * codes.shape[1], dtype)
        for name, tensor in (("codes", codes), ("scale", scale), ("whole", whole.float().reshape(()))):
            self.register_buffer(name, tensor)
        self.codes: Tensor
        self.scale: Tensor
        self.whole: Tensor

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Dequantised rows."""
        return unpack_nvfp4(self.codes[start:stop], self.scale[start:stop], self.whole, dtype)
