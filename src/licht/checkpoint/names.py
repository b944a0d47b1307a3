"""Key tables between the official layout and the diffusers layout, both ways.

A layout is a list of pieces. Each says which rows of which official tensor a foreign tensor holds, and how they were
rearranged. Every rearrangement is its own inverse, so one table serves loading and saving.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from licht.model.variants import AutoencoderConfig, TransformerConfig

DIFFUSION_PREFIXES = ("model.diffusion_model.", "diffusion_model.")


class Change(StrEnum):
    """How a foreign tensor differs from its official rows."""

    SAME = "same"
    SWAP_HALVES = "swap_halves"
    """The two halves of the rows are exchanged: (shift, scale) against (scale, shift)."""
    CONV_AS_LINEAR = "conv_as_linear"
    """Official 1 x 1 convolution (C, C, 1, 1), foreign linear (C, C)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Foreign tensor `foreign` = part `part` of `parts` equal row blocks of the official tensor `official`."""

    official: str
    foreign: str
    part: int = 0
    parts: int = 1
    change: Change = Change.SAME

    def to_foreign(self, official: Tensor) -> Tensor:
        """The foreign tensor, cut from the official one; a view where possible."""
        rows = official if self.parts == 1 else official.chunk(self.parts)[self.part]
        if self.change is Change.SWAP_HALVES:
            return swap_halves(rows)
        if self.change is Change.CONV_AS_LINEAR:
            return rows.flatten(1)
        return rows

    def foreign_shape(self, official: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the foreign tensor, from that of the official one."""
        shape = (official[0] // self.parts, *official[1:])
        return shape[:2] if self.change is Change.CONV_AS_LINEAR else shape

    def to_official(self, foreign: Tensor) -> Tensor:
        """The official rows that this foreign tensor holds; a view where possible."""
        if self.change is Change.SWAP_HALVES:
            return swap_halves(foreign)
        if self.change is Change.CONV_AS_LINEAR:
            return foreign[:, :, None, None]
        return foreign


def swap_halves(rows: Tensor) -> Tensor:
    """Exchange the upper and the lower half of the rows."""
    upper, lower = rows.chunk(2)
    return torch.cat([lower, upper])


def official_layout(names: Iterable[str]) -> list[Piece]:
    """The identity table of the given official names."""
    return [Piece(name, name) for name in names]


def transformer_layout(config: TransformerConfig) -> list[Piece]:
    """The diffusers names of the flow transformer."""
    pieces = [
        Piece("img_in.weight", "x_embedder.weight"),
        Piece("txt_in.weight", "context_embedder.weight"),
        Piece("final_layer.adaLN_modulation.1.weight", "norm_out.linear.weight", change=Change.SWAP_HALVES),
        Piece("final_layer.linear.weight", "proj_out.weight"),
    ]
    embedders = [("time_in", "timestep_embedder")] + [("guidance_in", "guidance_embedder")] * config.guidance_embed
    for official, foreign in embedders:
        for ours, theirs in (("in_layer", "linear_1"), ("out_layer", "linear_2")):
            pieces.append(Piece(f"{official}.{ours}.weight", f"time_guidance_embed.{foreign}.{theirs}.weight"))
    modulations = ("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation")
    pieces += [Piece(f"{name}.lin.weight", f"{name}.linear.weight") for name in modulations]
    for n in range(config.depth):
        pieces += _double_block(f"double_blocks.{n}", f"transformer_blocks.{n}")
    for n in range(config.depth_single_blocks):
        pieces += _single_block(f"single_blocks.{n}", f"single_transformer_blocks.{n}.attn")
    return pieces


def _double_block(ours: str, theirs: str) -> list[Piece]:
    pieces = []
    for stream, qkv, out, norm, mlp in (
        ("img", ("to_q", "to_k", "to_v"), "to_out.0", "norm_", "ff"),
        ("txt", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_add_out", "norm_added_", "ff_context"),
    ):
        attn = f"{ours}.{stream}_attn"
        pieces += [
            Piece(f"{attn}.qkv.weight", f"{theirs}.attn.{name}.weight", part, 3) for part, name in enumerate(qkv)
        ]
        pieces += [
            Piece(f"{attn}.norm.query_norm.scale", f"{theirs}.attn.{norm}q.weight"),
            Piece(f"{attn}.norm.key_norm.scale", f"{theirs}.attn.{norm}k.weight"),
            Piece(f"{attn}.proj.weight", f"{theirs}.attn.{out}.weight"),
            Piece(f"{ours}.{stream}_mlp.0.weight", f"{theirs}.{mlp}.linear_in.weight"),
            Piece(f"{ours}.{stream}_mlp.2.weight", f"{theirs}.{mlp}.linear_out.weight"),
        ]
    return pieces


def _single_block(ours: str, theirs: str) -> list[Piece]:
    return [
        Piece(f"{ours}.linear1.weight", f"{theirs}.to_qkv_mlp_proj.weight"),
        Piece(f"{ours}.linear2.weight", f"{theirs}.to_out.weight"),
        Piece(f"{ours}.norm.query_norm.scale", f"{theirs}.norm_q.weight"),
        Piece(f"{ours}.norm.key_norm.scale", f"{theirs}.norm_k.weight"),
    ]


def autoencoder_layout(config: AutoencoderConfig) -> list[Piece]:
    """The diffusers names of the autoencoder. `up` levels are numbered the other way round there."""
    pieces = [
        Piece("bn.running_mean", "bn.running_mean"),
        Piece("bn.running_var", "bn.running_var"),
        *_pairs("encoder.quant_conv", "quant_conv"),
        *_pairs("decoder.post_quant_conv", "post_quant_conv"),
    ]
    encoder_levels, decoder_levels = len(config.channels), len(config.decoder_channels)
    for side in ("encoder", "decoder"):
        pieces += _pairs(f"{side}.conv_in", f"{side}.conv_in")
        pieces += _pairs(f"{side}.norm_out", f"{side}.conv_norm_out")
        pieces += _pairs(f"{side}.conv_out", f"{side}.conv_out")
        pieces += _middle(f"{side}.mid", f"{side}.mid_block")
    for i, widths in enumerate(_widths(config.channels)):
        last = i == encoder_levels - 1
        pieces += _level(f"encoder.down.{i}", f"encoder.down_blocks.{i}", widths, config.num_res_blocks)
        pieces += (
            [] if last else _pairs(f"encoder.down.{i}.downsample.conv", f"encoder.down_blocks.{i}.downsamplers.0.conv")
        )
    for i, widths in enumerate(_widths(config.decoder_channels[::-1])):
        ours, theirs = f"decoder.up.{decoder_levels - 1 - i}", f"decoder.up_blocks.{i}"
        pieces += _level(ours, theirs, widths, config.num_res_blocks + 1)
        pieces += [] if i == decoder_levels - 1 else _pairs(f"{ours}.upsample.conv", f"{theirs}.upsamplers.0.conv")
    return pieces


def _widths(channels: tuple[int, ...]) -> list[tuple[int, int]]:
    """(width in, width out) of each level, in the order in which they run."""
    return list(zip((channels[0], *channels), channels, strict=False))


def _pairs(ours: str, theirs: str, change: Change = Change.SAME) -> list[Piece]:
    """Weight and bias of one layer; only the weight is reshaped."""
    return [Piece(f"{ours}.weight", f"{theirs}.weight", change=change), Piece(f"{ours}.bias", f"{theirs}.bias")]


def _resnet(ours: str, theirs: str, widths: tuple[int, int]) -> list[Piece]:
    pieces = []
    for name in ("norm1", "conv1", "norm2", "conv2"):
        pieces += _pairs(f"{ours}.{name}", f"{theirs}.{name}")
    if widths[0] != widths[1]:
        pieces += _pairs(f"{ours}.nin_shortcut", f"{theirs}.conv_shortcut")
    return pieces


def _level(ours: str, theirs: str, widths: tuple[int, int], blocks: int) -> list[Piece]:
    pieces = []
    for j in range(blocks):
        block_widths = widths if j == 0 else (widths[1], widths[1])
        pieces += _resnet(f"{ours}.block.{j}", f"{theirs}.resnets.{j}", block_widths)
    return pieces


def _middle(ours: str, theirs: str) -> list[Piece]:
    pieces = _resnet(f"{ours}.block_1", f"{theirs}.resnets.0", (0, 0))
    pieces += _resnet(f"{ours}.block_2", f"{theirs}.resnets.1", (0, 0))
    pieces += _pairs(f"{ours}.attn_1.norm", f"{theirs}.attentions.0.group_norm")
    for name, foreign in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
        pieces += _pairs(f"{ours}.attn_1.{name}", f"{theirs}.attentions.0.{foreign}", Change.CONV_AS_LINEAR)
    return pieces


def normalise_official(name: str) -> str:
    """An official name as the module has it: without wrapping prefixes, and `.scale` for the norms of q and k."""
    for prefix in DIFFUSION_PREFIXES:
        name = name.removeprefix(prefix)
    if name.endswith((".query_norm.weight", ".key_norm.weight")):
        name = name.removesuffix(".weight") + ".scale"
    return name


TOWER_PREFIXES = ("model.language_model.", "language_model.model.", "model.")
_TOWER_UNUSED = ("lm_head.", "norm.", "vision_tower.", "multi_modal_projector.")


def tower_name(name: str, layers_used: int) -> str | None:
    """A language model's key as our tower has it, or None for what is never needed (head, vision, upper layers)."""
    for prefix in ("language_model.lm_head.", "model.vision_tower.", "model.multi_modal_projector."):
        if name.startswith(prefix):
            return None
    for prefix in TOWER_PREFIXES:
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            break
    if name.startswith(_TOWER_UNUSED):
        return None
    head, _, rest = name.partition(".")
    number = rest.split(".", 1)[0]
    if head == "layers" and number.isdigit() and int(number) >= layers_used:
        return None
    return name
