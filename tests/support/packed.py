"""Quantised files as others write them, transcribed from their published layouts, from the weights of a small model."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from licht.checkpoint.save import official_tensors
from licht.model.transformer import Flux2Transformer
from licht.model.variants import TransformerConfig
from tests.support import models

Made = tuple[dict[str, Tensor], Tensor]
"""The tensors that stand in the file for one weight, and the values that they mean."""

SIZES = TransformerConfig(64, 2, 2, 2, context_in_dim=96, guidance_embed=False, in_channels=16, axes_dim=(8,) * 4)


def network(seed: int = 1) -> Flux2Transformer:
    """A small random transformer whose blocks are wide enough for every format."""
    return models.transformer(SIZES, seed)


def in_blocks(name: str) -> bool:
    """Whether a weight is one that quantised files quantise."""
    return name.endswith(".weight") and name.startswith(("double_blocks", "single_blocks"))


def old_fp8(layer: str, weight: Tensor) -> Made:
    """The older ComfyUI files: one scale for the matrix."""
    scale = weight.abs().max() / 448
    codes = (weight / scale).to(torch.float8_e4m3fn)
    tensors = {f"{layer}.weight": codes, f"{layer}.scale_weight": scale, f"{layer}.scale_input": torch.tensor(1.0)}
    return tensors, codes.float() * scale


def new_fp8(layer: str, weight: Tensor) -> Made:
    """The newer ComfyUI files: the same numbers under other names."""
    tensors, values = old_fp8(layer, weight)
    return {
        f"{layer}.weight": tensors[f"{layer}.weight"],
        f"{layer}.weight_scale": tensors[f"{layer}.scale_weight"],
    }, values


def e5m2(layer: str, weight: Tensor) -> Made:
    """The other 8-bit float."""
    scale = weight.abs().max() / 57344
    codes = (weight / scale).to(torch.float8_e5m2)
    return {f"{layer}.weight": codes, f"{layer}.weight_scale": scale}, codes.float() * scale


def row_fp8(layer: str, weight: Tensor) -> Made:
    """The official files with a scale for each row."""
    scale = weight.abs().amax(dim=1) / 448
    codes = (weight / scale[:, None]).to(torch.float8_e4m3fn)
    return {f"{layer}.weight": codes, f"{layer}.weight_scale": scale}, codes.float() * scale[:, None]


def cast_fp8(layer: str, weight: Tensor) -> Made:
    """A plain cast without any scale."""
    codes = weight.to(torch.float8_e4m3fn)
    return {f"{layer}.weight": codes}, codes.float()


def int8(layer: str, weight: Tensor) -> Made:
    """One scale for the matrix."""
    scale = weight.abs().max() / 127
    codes = (weight / scale).round().to(torch.int8)
    return {f"{layer}.weight": codes, f"{layer}.weight_scale": scale}, codes.float() * scale


def nvfp4(layer: str, weight: Tensor, comfy: bool) -> Made:
    """E2M1 codes in groups of 16, value by value; ComfyUI's arrangement or ModelOpt's."""
    grid = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    rows = weight.shape[0]
    whole = weight.abs().max() / (448 * 6)
    scale = (weight.view(rows, -1, 16).abs().amax(dim=2) / 6 / whole).to(torch.float8_e4m3fn)
    step = (scale.float() * whole).repeat_interleave(16, dim=1)
    index = ((weight / step).abs()[..., None] - grid).abs().argmin(dim=-1)
    values = grid[index] * weight.sign() * step
    codes = (index + 8 * (weight < 0)).to(torch.uint8)
    first, second = codes[:, ::2], codes[:, 1::2]
    packed = first * 16 + second if comfy else second * 16 + first
    return {
        f"{layer}.weight": packed,
        f"{layer}.weight_scale": _in_tiles(scale) if comfy else scale,
        f"{layer}.weight_scale_2": whole,
        f"{layer}.input_scale": torch.tensor(0.01),
    }, values


def _in_tiles(scale: Tensor) -> Tensor:
    """Byte by byte: tile of 128 x 4, in it line r % 32, then r // 32, then the column."""
    rows, groups = scale.shape
    height, width = -(-rows // 128) * 128, -(-groups // 4) * 4
    out = torch.zeros(height * width, dtype=torch.uint8)
    source = scale.view(torch.uint8)
    for r in range(rows):
        for c in range(groups):
            tile = (r // 128) * (width // 4) + c // 4
            out[tile * 512 + r % 32 * 16 + r % 128 // 32 * 4 + c % 4] = source[r, c]
    return out.view(height, width).view(torch.float8_e4m3fn)


def write(
    path: Path,
    made: Callable[[str, Tensor], Made],
    *,
    metadata: str | None = None,
    comfy_quant: str | None = None,
    mark: bool = False,
    prefix: str = "",
) -> dict[str, Tensor]:
    """Write the small model with its blocks quantised by `made`; returns what every official tensor means."""
    tensors, meaning = {}, {}
    for name, weight in official_tensors(network()).items():
        stored, meaning[name] = {name: weight}, weight
        if in_blocks(name):
            layer = name.removesuffix(".weight")
            stored, meaning[name] = made(layer, weight)
            if comfy_quant is not None:
                said = json.dumps({"format": comfy_quant}).encode()
                stored[f"{layer}.comfy_quant"] = torch.tensor(list(said), dtype=torch.uint8)
        tensors.update({prefix + key: tensor.contiguous() for key, tensor in stored.items()})
    if mark:
        tensors[f"{prefix}scaled_fp8"] = torch.empty(2, dtype=torch.float8_e4m3fn)
    layers = {name.removesuffix(".weight"): {"format": metadata} for name in meaning if in_blocks(name)}
    said_of_all = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}
    save_file(tensors, path, said_of_all if metadata else None)
    return meaning
