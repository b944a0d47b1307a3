"""What a request makes of a model: tokens, memory beside the weights, and arithmetic, for each stage.

Counts of memory are of the largest moment in a stage; the constants were measured, see tests/plan/test_work.py. Shapes:
N tokens of text, picture and references together.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from licht.core.sizes import Size
from licht.model.variants import AutoencoderConfig, Kind, TextConfig, Variant
from licht.plan.sizes import (
    BITS,
    block_weights,
    conv_weights,
    middle_weights,
    resnet_weights,
    tower_layer_weights,
)

ACTIVATION_WIDTHS: Final = 24
"""Numbers for each token and channel at the largest moment of a block, in units of the network's dtype."""
TOWER_WIDTHS: Final = 5.0
"""The same for a tower, beside two of its MLP's width."""
SLICE_BYTES: Final = 16 * 2**20 * 8
"""What dequantising a slice of a matrix takes for a moment."""
DECODER_MAPS: Final = (3.4, 0.75)
"""Maps of the last level's first width, at full resolution, that are alive at once: of the whole, and in bands."""
ENCODER_MAPS: Final = (5.1, 1.35)
"""The same of the encoder, in units of its first width."""
BAND_NUMBERS: Final = 8 * 2**20
"""Numbers in a band, as `model.banded` cuts them."""
BANDS: Final = 12
"""So many bands are alive at once beside the maps."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be drawn, as far as it costs anything."""

    size: Size
    images: int = 0
    """Reference pictures."""
    num: int = 1
    """Pictures to draw."""
    steps: int | None = None
    guidance: float | None = None
    reference_size: Size | None = None
    """Size of each reference; None for the largest that the model takes."""
    lora_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """Memory beside weights, and multiplications with additions, of one stage."""

    memory_bytes: int
    operations: float


def passes(variant: Variant, guidance: float | None) -> int:
    """How often the network runs in a step: twice with classifier-free guidance."""
    scale = guidance if guidance is not None else variant.default_guidance
    return 2 if variant.kind is Kind.BASE and scale is not None and scale != 1.0 else 1


def reference_sizes(variant: Variant, request: Request) -> list[Size]:
    """The size of each reference as it is encoded."""
    cap_px = variant.single_reference_px if request.images == 1 else variant.extra_reference_px
    side = math.isqrt(cap_px) // 16 * 16
    largest = Size(side, side)
    wanted = request.reference_size
    one = largest if wanted is None or wanted.area_px > largest.area_px else wanted
    return [one] * request.images


def denoise_tokens(variant: Variant, request: Request) -> int:
    """N of one picture."""
    return variant.text.length + request.size.tokens + _reference_tokens(variant, request)


def _reference_tokens(variant: Variant, request: Request) -> int:
    return sum(size.tokens for size in reference_sizes(variant, request))


def encode_prompt_work(text: TextConfig, prompts: int, dtype: str) -> Work:
    """The text tower on `prompts` prompts."""
    tokens, tower = prompts * text.length, text.tower
    width = TOWER_WIDTHS * tower.hidden_size + 2 * tower.intermediate_size
    width += 2 * tower.num_attention_heads * tower.head_dim + text.context_dim
    attention = 4.0 * prompts * text.length**2 * tower.num_attention_heads * tower.head_dim
    operations = text.layers_used * (2.0 * tower_layer_weights(text) * tokens + attention)
    return Work(_bytes(tokens * width, dtype), operations)


def denoise_work(variant: Variant, request: Request, batch: int, dtype: str) -> Work:
    """All steps of all pictures, `batch` of them at a time."""
    sizes = variant.transformer
    rows = passes(variant, request.guidance)
    tokens = denoise_tokens(variant, request)
    h, m = sizes.hidden_size, sizes.mlp_hidden_size
    # a block holds q, k, v, the two halves of its MLP and copies of them: about so many numbers a token
    widths = ACTIVATION_WIDTHS * h + 3 * (m - 3 * h)
    memory = _bytes(min(batch, request.num) * rows * tokens * widths, dtype)
    if variant.caches_references:
        memory += _bytes(2 * h * (sizes.depth + sizes.depth_single_blocks) * _reference_tokens(variant, request), dtype)
    double, single = block_weights(sizes)
    matrices = 2.0 * (sizes.depth * double / 2 + sizes.depth_single_blocks * single) * tokens
    attention = 4.0 * (sizes.depth + sizes.depth_single_blocks) * tokens**2 * h
    runs = float(request.num * rows)
    steps = request.steps or variant.default_steps
    return Work(memory, runs * steps * (matrices + attention))


def encode_references_work(variant: Variant, request: Request, dtype: str, banded: bool) -> Work:
    """The encoder on each reference in turn."""
    vae = variant.autoencoder
    sizes = reference_sizes(variant, request)
    if not sizes:
        return Work(0, 0.0)
    largest = max(size.area_px for size in sizes)
    latents = sum(size.tokens for size in sizes) * vae.token_channels * 4
    return Work(
        _maps(vae.channels[0], largest, dtype, ENCODER_MAPS, banded) + latents,
        sum(_encoder_operations(vae, size.area_px) for size in sizes),
    )


def decode_work(variant: Variant, request: Request, dtype: str, banded: bool) -> Work:
    """The decoder on each picture in turn."""
    vae, area = variant.autoencoder, request.size.area_px
    width = max(vae.decoder_channels[:2])  # the last level begins with the width of the one before it
    return Work(_maps(width, area, dtype, DECODER_MAPS, banded), request.num * _decoder_operations(vae, area))


def _maps(channels: int, area_px: int, dtype: str, maps: tuple[float, float], banded: bool) -> int:
    whole = _bytes(channels * area_px * maps[0], dtype)
    if not banded:
        return whole
    return min(whole, _bytes(channels * area_px * maps[1] + BANDS * BAND_NUMBERS, dtype))


def _encoder_operations(vae: AutoencoderConfig, area_px: int) -> float:
    """Every weight meets every pixel of its level; a level has a quarter of the pixels of the one before."""
    widths = vae.channels
    last = len(widths) - 1
    total = _middle_operations(widths[-1], area_px / 4.0**last) + area_px * conv_weights(3, widths[0], 3)
    for level, (inner, outer) in enumerate(pairwise((widths[0], *widths))):
        total += resnet_weights(inner, outer, vae.num_res_blocks) * area_px / 4.0**level
        total += conv_weights(outer, outer, 3) * area_px / 4.0 ** (level + 1) if level < last else 0
    return 2.0 * total


def _decoder_operations(vae: AutoencoderConfig, area_px: int) -> float:
    """The same from the lowest level up."""
    widths = vae.decoder_channels[::-1]
    last = len(widths) - 1
    total = _middle_operations(widths[0], area_px / 4.0**last) + area_px * conv_weights(widths[-1], 3, 3)
    for level, (inner, outer) in enumerate(pairwise((widths[0], *widths))):
        total += resnet_weights(inner, outer, vae.num_res_blocks + 1) * area_px / 4.0 ** (last - level)
        total += conv_weights(outer, outer, 3) * area_px / 4.0 ** (last - level - 1) if level < last else 0
    return 2.0 * total


def _middle_operations(width: int, pixels: float) -> float:
    """Half the operations between encoder or decoder and their lowest level, where every pixel meets every other."""
    return middle_weights(width) * pixels + 2 * pixels * pixels * width


def _bytes(numbers: float, dtype: str) -> int:
    return round(numbers * BITS[dtype] / 8)
