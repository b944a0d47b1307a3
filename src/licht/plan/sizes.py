"""Bytes of the parts of a model, from its sizes alone.

Every count is of weights, in closed form. h is the width of the transformer, d that of the text tower.
"""

from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from licht.model.variants import AutoencoderConfig, TextConfig, Tower, TransformerConfig

BITS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "float32": 32.0,
        "bfloat16": 16.0,
        "fp8": 8.0,
        "int8": 8.0,
        "q4": 4.5,
        "nvfp4": 4.5,
        "nf4": 4.5,
        "gguf-q8_0": 8.5,
        "gguf-q6_k": 6.5625,
        "gguf-q5_k": 5.5,
        "gguf-q5_0": 5.5,
        "gguf-q4_k": 4.5,
        "gguf-q4_0": 4.5,
    }
)
"""Bits that a weight takes in each format, scales of groups included."""


def bytes_of(weights: int, form: str) -> int:
    """Bytes of so many weights in a format."""
    return round(weights * BITS[form] / 8)


def block_weights(config: TransformerConfig) -> tuple[int, int]:
    """Matrix entries of one double block and of one single block."""
    h, m = config.hidden_size, config.mlp_hidden_size
    return 2 * (4 * h * h + 3 * m * h), 4 * h * h + 3 * m * h


def largest_matrix(config: TransformerConfig | TextConfig) -> int:
    """Entries of the largest matrix of any block."""
    if isinstance(config, TextConfig):
        return config.tower.hidden_size * config.tower.intermediate_size
    return config.hidden_size * (3 * config.hidden_size + 2 * config.mlp_hidden_size)


def transformer_bytes(config: TransformerConfig, dtype: str, quant: str) -> int:
    """The blocks' matrices in `quant` ("none" for `dtype`), everything else in `dtype`."""
    double, single = block_weights(config)
    blocks = config.depth * double + config.depth_single_blocks * single
    form = dtype if quant == "none" else quant
    return bytes_of(blocks, form) + bytes_of(config.parameters - blocks, dtype)


def streamed_transformer_bytes(config: TransformerConfig, dtype: str, quant: str, there: int = 2) -> int:
    """What stays on the device while blocks come and go: all but the blocks, and `there` of the largest of them."""
    double, single = block_weights(config)
    blocks = config.depth * double + config.depth_single_blocks * single
    form = dtype if quant == "none" else quant
    return bytes_of(config.parameters - blocks, dtype) + there * bytes_of(max(double, single), form)


def tower_layer_weights(text: TextConfig) -> int:
    """Matrix entries of one layer of the text tower."""
    tower = text.tower
    attention = 2 * (tower.num_attention_heads + tower.num_key_value_heads) * tower.head_dim * tower.hidden_size
    return attention + 3 * tower.hidden_size * tower.intermediate_size


def tower_bytes(text: TextConfig, dtype: str, quant: str) -> int:
    """The layers that are used, in `quant`, with embedding and norms in `dtype`."""
    tower = text.tower
    form = dtype if quant == "none" else quant
    norms = 2 * tower.hidden_size + (2 * tower.head_dim if tower.tower is Tower.QWEN3 else 0)
    plain = tower.vocab_size * tower.hidden_size + text.layers_used * norms
    return bytes_of(text.layers_used * tower_layer_weights(text), form) + bytes_of(plain, dtype)


def streamed_tower_bytes(text: TextConfig, dtype: str, quant: str, there: int = 2) -> int:
    """The embedding, and `there` layers of the tower."""
    form = dtype if quant == "none" else quant
    embedding = text.tower.vocab_size * text.tower.hidden_size
    return bytes_of(embedding, dtype) + there * bytes_of(tower_layer_weights(text), form)


def autoencoder_weights(config: AutoencoderConfig) -> int:
    """All weights, biases and stored statistics included."""
    z, wide = config.z_channels, config.channels
    encoder = (
        conv_weights(3, wide[0], 3)
        + middle_weights(wide[-1])
        + 2 * wide[-1]
        + conv_weights(wide[-1], 2 * z, 3)
        + conv_weights(2 * z, 2 * z, 1)
    )
    for i, (inner, outer) in enumerate(pairwise((wide[0], *wide))):
        encoder += resnet_weights(inner, outer, config.num_res_blocks)
        encoder += conv_weights(outer, outer, 3) if i < len(wide) - 1 else 0
    wide = config.decoder_channels[::-1]
    decoder = (
        conv_weights(z, z, 1)
        + conv_weights(z, wide[0], 3)
        + middle_weights(wide[0])
        + 2 * wide[-1]
        + conv_weights(wide[-1], 3, 3)
    )
    for i, (inner, outer) in enumerate(pairwise((wide[0], *wide))):
        decoder += resnet_weights(inner, outer, config.num_res_blocks + 1)
        decoder += conv_weights(outer, outer, 3) if i < len(wide) - 1 else 0
    return encoder + decoder + 2 * config.token_channels


def conv_weights(inner: int, outer: int, side: int) -> int:
    """Weights and biases of one convolution."""
    return inner * outer * side * side + outer


def _block(inner: int, outer: int) -> int:
    shortcut = conv_weights(inner, outer, 1) if inner != outer else 0
    return 2 * inner + conv_weights(inner, outer, 3) + 2 * outer + conv_weights(outer, outer, 3) + shortcut


def resnet_weights(inner: int, outer: int, count: int) -> int:
    """Weights of so many residual blocks, of which the first changes the width."""
    return _block(inner, outer) + (count - 1) * _block(outer, outer)


def middle_weights(width: int) -> int:
    """Weights between encoder or decoder and their lowest level."""
    return 2 * _block(width, width) + 2 * width + 4 * conv_weights(width, width, 1)
