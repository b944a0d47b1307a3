"""What a checkpoint is: its layout from its names, its sizes from its shapes, the rest from the config beside it."""

import re
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from licht.checkpoint.names import normalise_official
from licht.checkpoint.reader import TensorSource
from licht.core.errors import InvalidCheckpoint
from licht.model.variants import (
    MISTRAL_SMALL,
    QWEN3_4B,
    QWEN3_8B,
    AutoencoderConfig,
    Tower,
    TowerConfig,
    TransformerConfig,
)

Shapes = Mapping[str, tuple[int, ...]]
Config = Mapping[str, Any]

LEVELS: Final = 4
"""Resolutions of the autoencoder: three times halved."""
MAX_LAYERS: Final = 512
"""More blocks than any network has; a file that claims more only costs time."""


class Layout(StrEnum):
    """Whose key names a file uses."""

    OFFICIAL = "official"
    DIFFUSERS = "diffusers"


_TRANSFORMER_PROBES = {
    Layout.OFFICIAL: {
        "mark": "double_stream_modulation_img.lin.weight",
        "img_in": "img_in.weight",
        "txt_in": "txt_in.weight",
        "guidance": "guidance_in.in_layer.weight",
        "norm": "single_blocks.0.norm.query_norm.scale",
        "down": "single_blocks.0.linear2.weight",
        "double": "double_blocks",
        "single": "single_blocks",
    },
    Layout.DIFFUSERS: {
        "mark": "double_stream_modulation_img.linear.weight",
        "img_in": "x_embedder.weight",
        "txt_in": "context_embedder.weight",
        "guidance": "time_guidance_embed.guidance_embedder.linear_1.weight",
        "norm": "single_transformer_blocks.0.attn.norm_q.weight",
        "down": "single_transformer_blocks.0.attn.to_out.weight",
        "double": "transformer_blocks",
        "single": "single_transformer_blocks",
    },
}


def transformer_layout_of(source: TensorSource) -> Layout:
    """Whose names a flow transformer's file uses. Raises `InvalidCheckpoint` if it is no FLUX.2 transformer."""
    names = {normalise_official(name) for name in source}
    for layout, probes in _TRANSFORMER_PROBES.items():
        if probes["mark"] in names:
            return layout
    raise InvalidCheckpoint(
        f"{source.place} is not a FLUX.2 transformer: it has no double_stream_modulation_img; "
        "point to a transformer in the official or the diffusers layout"
    )


def transformer_config(source: TensorSource, layout: Layout, config: Config) -> TransformerConfig:
    """The sizes of a flow transformer, from its shapes; `config` (config.json, may be empty) gives what they hide."""
    shapes = {normalise_official(name): info.shape for name, info in source.infos.items()}
    probes = _TRANSFORMER_PROBES[layout]
    hidden, in_channels = _matrix(shapes, probes["img_in"], source)
    _, context = _matrix(shapes, probes["txt_in"], source)
    _, down = _matrix(shapes, probes["down"], source)
    (head_dim,) = _shape(shapes, probes["norm"], 1, source)
    axes = _axes(config["axes_dims_rope"], source) if "axes_dims_rope" in config else (head_dim // 4,) * 4
    if sum(axes) != head_dim or any(axis % 2 for axis in axes) or hidden % head_dim or down <= hidden:
        raise InvalidCheckpoint(
            f"{source.place}: width {hidden}, head width {head_dim}, rotary axes {axes} and the {down} columns of "
            f"{probes['down']} do not fit together; the file is damaged or the config is of another model"
        )
    sizes = TransformerConfig(
        hidden_size=hidden,
        num_heads=hidden // head_dim,
        depth=_count(shapes, probes["double"], source),
        depth_single_blocks=_count(shapes, probes["single"], source),
        context_in_dim=context,
        guidance_embed=probes["guidance"] in shapes,
        in_channels=in_channels,
        mlp_ratio=(down - hidden) / hidden,
        axes_dim=axes,
        theta=_whole(config, "rope_theta", source) if "rope_theta" in config else 2000,
    )
    _check_said(config, sizes, source)
    return sizes


def _axes(value: object, source: TensorSource) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) != 4 or not all(type(axis) is int and axis > 0 for axis in value):
        raise InvalidCheckpoint(
            f"the config.json of {source.place} has axes_dims_rope {value!r}; expected four positive numbers"
        )
    return tuple(value)


def _check_said(config: Config, sizes: TransformerConfig, source: TensorSource) -> None:
    """Refuse a config that contradicts the shapes (whole blocks may be missing) or asks for what is not implemented."""
    for key, value in (
        ("num_layers", sizes.depth),
        ("num_single_layers", sizes.depth_single_blocks),
        ("attention_head_dim", sizes.head_dim),
        ("num_attention_heads", sizes.num_heads),
        ("joint_attention_dim", sizes.context_in_dim),
        ("in_channels", sizes.in_channels),
        ("guidance_embeds", sizes.guidance_embed),
        ("eps", 1e-6),
        ("patch_size", 1),
    ):
        if key in config and config[key] != value:
            raise InvalidCheckpoint(
                f"the config.json of {source.place} says {key} {config[key]!r}, its tensors make a network with {value}; "
                "tensors are missing or the config is of another model"
            )


def autoencoder_layout_of(source: TensorSource) -> Layout:
    """Whose names an autoencoder's file uses. Raises `InvalidCheckpoint` if it is no FLUX.2 autoencoder."""
    if "bn.running_mean" in source and "encoder.quant_conv.weight" in source:
        return Layout.OFFICIAL
    if "bn.running_mean" in source and "quant_conv.weight" in source:
        return Layout.DIFFUSERS
    raise InvalidCheckpoint(
        f"{source.place} is not a FLUX.2 autoencoder: it lacks bn.running_mean or quant_conv; "
        "a FLUX.1 autoencoder does not fit"
    )


def autoencoder_config(source: TensorSource, layout: Layout, config: Config) -> AutoencoderConfig:
    """The sizes of an autoencoder, from its shapes; `config` gives the group count and eps if they are unusual."""
    shapes = {name: info.shape for name, info in source.infos.items()}
    official = layout is Layout.OFFICIAL
    down, up, block = ("down", "up", "block") if official else ("down_blocks", "up_blocks", "resnets")
    encoder_widths = _level_widths(shapes, f"encoder.{down}", block, source)
    decoder_widths = _level_widths(shapes, f"decoder.{up}", block, source)[:: 1 if official else -1]
    z_channels = _shape(shapes, "decoder.conv_in.weight", 4, source)[1]
    groups = _whole(config, "norm_num_groups", source) if "norm_num_groups" in config else 32
    if any(width % groups for width in encoder_widths + decoder_widths):
        raise InvalidCheckpoint(
            f"{source.place}: {groups} norm groups do not divide the widths {encoder_widths} and {decoder_widths}; "
            "put the config.json of this autoencoder beside it (as NAME.json beside NAME.safetensors)"
        )
    return AutoencoderConfig(
        channels=encoder_widths,
        decoder_channels=decoder_widths,
        num_res_blocks=_count(shapes, f"encoder.{down}.0.{block}", source),
        z_channels=z_channels,
        norm_groups=groups,
        batch_norm_eps=_positive(config, "batch_norm_eps", source) if "batch_norm_eps" in config else 1e-4,
    )


def tower_config(config: Config, source: TensorSource) -> TowerConfig:
    """The sizes of a language model, from its config.json, or by its width where there is none."""
    if not config:
        return _known_tower(source)
    text = config.get("text_config", config)
    if not isinstance(text, dict):
        raise InvalidCheckpoint(f"the config.json of {source.place} has a text_config that is no object; copy it again")
    kind = str(text.get("model_type", config.get("model_type")))
    towers = {"qwen3": Tower.QWEN3, "mistral": Tower.MISTRAL3, "mistral3": Tower.MISTRAL3, "ministral3": Tower.MISTRAL3}
    if kind not in towers:
        raise InvalidCheckpoint(f"{source.place}: text model type {kind!r} is unknown; expected qwen3 or mistral3")
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise InvalidCheckpoint(
            f"the config.json of {source.place} has rotary settings that are no object; copy it again"
        )
    _refuse_unsupported(text, rope, source)
    heads, hidden = _whole(text, "num_attention_heads", source), _whole(text, "hidden_size", source)
    tower = TowerConfig(
        tower=towers[kind],
        vocab_size=_whole(text, "vocab_size", source),
        hidden_size=hidden,
        intermediate_size=_whole(text, "intermediate_size", source),
        num_layers=_whole(text, "num_hidden_layers", source, most=MAX_LAYERS),
        num_attention_heads=heads,
        num_key_value_heads=_whole(text, "num_key_value_heads", source),
        head_dim=hidden // heads if text.get("head_dim") is None else _whole(text, "head_dim", source),
        rope_theta=_positive(rope if "rope_theta" in rope else text, "rope_theta", source),
        rms_norm_eps=_positive(text, "rms_norm_eps", source),
    )
    if heads % tower.num_key_value_heads or tower.head_dim % 2 or not tower.head_dim:
        raise InvalidCheckpoint(
            f"the config.json of {source.place} has {heads} heads of width {tower.head_dim} for "
            f"{tower.num_key_value_heads} key heads, which do not fit together; copy it again"
        )
    return tower


def _refuse_unsupported(text: Config, rope: Config, source: TensorSource) -> None:
    """Refuse settings that would change the result if they were ignored."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    for name, value, usual in (
        ("rope type", kind, "default"),
        ("activation", text.get("hidden_act", "silu"), "silu"),
        ("attention bias", bool(text.get("attention_bias", False)), False),
        ("sliding window", bool(text.get("use_sliding_window") and text.get("sliding_window")), False),
    ):
        if value != usual:
            raise InvalidCheckpoint(f"the text model of {source.place} has {name} {value!r}; only {usual!r} is known")


def _known_tower(source: TensorSource) -> TowerConfig:
    widths = {
        info.shape[1]
        for name, info in source.infos.items()
        if name.endswith("embed_tokens.weight") and len(info.shape) == 2
    }
    for tower in (QWEN3_4B, QWEN3_8B, MISTRAL_SMALL):
        if tower.hidden_size in widths:
            return tower
    raise InvalidCheckpoint(f"{source.place} has no config.json and is none of the known text models; add its config")


def _level_widths(shapes: Shapes, prefix: str, block: str, source: TensorSource) -> tuple[int, ...]:
    levels = _count(shapes, prefix, source)
    if levels != LEVELS:
        raise InvalidCheckpoint(
            f"{source.place} has {levels} levels below {prefix}; a FLUX.2 autoencoder has {LEVELS}; use one of those"
        )
    return tuple(_shape(shapes, f"{prefix}.{i}.{block}.0.conv1.weight", 4, source)[0] for i in range(levels))


def _count(shapes: Shapes, prefix: str, source: TensorSource) -> int:
    """How many numbered children `prefix` has. Raises `InvalidCheckpoint` for none, or for a gap between them."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d{1,4})\.")
    numbers = {int(match[1]) for name in shapes if (match := pattern.match(name))}
    gap = next(number for number in range(len(numbers) + 1) if number not in numbers)
    if gap != len(numbers) or not numbers:
        raise InvalidCheckpoint(f"{source.place} lacks all tensors of {prefix}.{gap}; the file is incomplete")
    if len(numbers) > MAX_LAYERS:
        raise InvalidCheckpoint(f"{source.place} has {len(numbers)} {prefix}; at most {MAX_LAYERS} make a network")
    return len(numbers)


def _whole(config: Config, key: str, source: TensorSource, most: int = 2**24) -> int:
    """The whole number `key` of a config.json, from 1 to `most`."""
    value = config.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise InvalidCheckpoint(
            f"the config.json of {source.place} lacks a usable {key!r} (it is {value!r}); "
            f"expected a whole number from 1 to {most}"
        )
    return value


def _positive(config: Config, key: str, source: TensorSource) -> float:
    """The positive finite number `key` of a config.json."""
    value = config.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= sys.float_info.max:
        raise InvalidCheckpoint(
            f"the config.json of {source.place} lacks a usable {key!r} (it is {value!r}); expected a positive number"
        )
    return float(value)


def _matrix(shapes: Shapes, name: str, source: TensorSource) -> tuple[int, int]:
    rows, columns = _shape(shapes, name, 2, source)
    return rows, columns


def _shape(shapes: Shapes, name: str, ndim: int, source: TensorSource) -> tuple[int, ...]:
    if name not in shapes:
        raise InvalidCheckpoint(f"{source.place} lacks the tensor {name}; the file is incomplete")
    if len(shapes[name]) != ndim:
        raise InvalidCheckpoint(f"tensor {name} in {source.place} has shape {shapes[name]}; expected {ndim} axes")
    if 0 in shapes[name]:
        raise InvalidCheckpoint(f"tensor {name} in {source.place} is empty, with shape {shapes[name]}; copy it again")
    return shapes[name]
