"""What the keys of LoRA files mean: which layer of the network, and which part of the change, in every dialect.

A layer is looked up by its whole name among the names that a network of this size has, in both layouts, with dots and
with underscores. So `to_out` and `to_out_0`, or `ff` and `ff_context`, cannot be mistaken for one another, and a block
that the network does not have is unknown.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from licht.checkpoint.names import Change, transformer_layout
from licht.model.variants import TransformerConfig

_WRAPPERS: Final = ("base_model.model.", "transformer.", "model.diffusion_model.", "diffusion_model.", "unet.")
_UNDERSCORED: Final = ("lora_unet_", "lora_transformer_", "lycoris_")
_FUSED_BY_DIFFUSERS: Final = {"img_attn.qkv": "attn.to_qkv", "txt_attn.qkv": "attn.to_added_qkv"}
"""What diffusers calls the fused projections of a double block when it is told to fuse them."""

_PARTS: Final = (
    (re.compile(r"\.lora_A(\.[A-Za-z0-9_-]+)??(\.weight)?\Z"), "down"),
    (re.compile(r"\.lora_B(\.[A-Za-z0-9_-]+)??(\.weight)?\Z"), "up"),
    (re.compile(r"(\.lora_|_lora\.|\.lora\.|\.lora_linear_layer\.)down(\.weight)?\Z"), "down"),
    (re.compile(r"(\.lora_|_lora\.|\.lora\.|\.lora_linear_layer\.)up(\.weight)?\Z"), "up"),
    (re.compile(r"\.(dora_scale|lora_magnitude_vector)(\.[A-Za-z0-9_-]+)??(\.weight)?\Z"), "magnitude"),
    (re.compile(r"\.alpha\Z"), "alpha"),
    (re.compile(r"\.lokr_w1\Z"), "w1"),
    (re.compile(r"\.lokr_w1_a\Z"), "w1_a"),
    (re.compile(r"\.lokr_w1_b\Z"), "w1_b"),
    (re.compile(r"\.lokr_w2\Z"), "w2"),
    (re.compile(r"\.lokr_w2_a\Z"), "w2_a"),
    (re.compile(r"\.lokr_w2_b\Z"), "w2_b"),
)
_OF_A_LORA: Final = re.compile(r"[._](lora|lokr|loha|hada|oft|boft|glora|dora)[._]|\.(alpha|diff|diff_b)$")


@dataclass(frozen=True, slots=True)
class Place:
    """Part `part` of `parts` equal row blocks of the layer `official`; `swap` exchanges the halves of the rows."""

    official: str
    part: int = 0
    parts: int = 1
    swap: bool = False


def places(config: TransformerConfig) -> Mapping[str, Place]:
    """Every name that a linear layer of such a network bears in some dialect -> where it is."""
    dotted = {}
    for piece in transformer_layout(config):
        ours, theirs = piece.official.removesuffix(".weight"), piece.foreign.removesuffix(".weight")
        if not piece.official.endswith(".weight"):
            continue
        dotted[ours] = Place(ours)
        dotted[theirs] = Place(ours, piece.part, piece.parts, piece.change is Change.SWAP_HALVES)
    for number in range(config.depth):
        for ours, theirs in _FUSED_BY_DIFFUSERS.items():
            official = f"double_blocks.{number}.{ours}"
            dotted[f"transformer_blocks.{number}.{theirs}"] = Place(official)
    aliases = {
        name.removeprefix("tran"): place for name, place in dotted.items() if name.startswith("transformer_blocks.")
    }
    dotted |= aliases  # some files have lost the first four letters to a prefix that was cut off too eagerly
    return dotted | {name.replace(".", "_"): place for name, place in dotted.items()}


def split_key(key: str) -> tuple[str, str] | None:
    """(name of the layer, part of the change) of a key, or None if it is no part of a LoRA that is known."""
    for pattern, part in _PARTS:
        match = pattern.search(key)
        if match:
            return unwrapped(key[: match.start()]), part
    return None


def is_adapter_key(key: str) -> bool:
    """Whether a tensor of this name belongs to any kind of adapter, known or not."""
    return split_key(key) is not None or _OF_A_LORA.search(key) is not None


def unwrapped(name: str) -> str:
    """A layer's name without what frameworks wrap around it, however often."""
    for prefix in _UNDERSCORED:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    before = ""
    while before != name:
        before = name
        for prefix in _WRAPPERS:
            name = name.removeprefix(prefix)
    return name
