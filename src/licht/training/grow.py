"""Deeper networks from shallower ones that are trained already: new blocks begin without effect."""

import re
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

_BLOCK: Final = re.compile(r"transformer\.(double_blocks|single_blocks)\.(\d+)\.(.+)")
_WAYS_OUT: Final = ("img_attn.proj.", "txt_attn.proj.", "img_mlp.2.", "txt_mlp.2.", "linear2.")
"""What a block adds to the residual stream comes out of these."""


def block_counts(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """How many blocks of each sort there are."""
    counts = {"double_blocks": 0, "single_blocks": 0}
    for name in tensors:
        if match := _BLOCK.fullmatch(name):
            counts[match[1]] = max(counts[match[1]], int(match[2]) + 1)
    return counts


def deepened(tensors: Mapping[str, Tensor], depth: int, depth_single: int) -> dict[str, Tensor]:
    """Weights of a transformer with `depth` double and `depth_single` single blocks that computes the same.

    Every new block stands behind the one that it is a copy of, spread evenly, and its ways out are zero (stacking:
    Gong et al., 2019; blocks without effect: Chen et al., Net2Net, 2015). Sorts that have as many blocks, or more,
    are left as they are.
    """
    wanted = {"double_blocks": depth, "single_blocks": depth_single}
    counts = block_counts(tensors)
    grown = {name: tensor for name, tensor in tensors.items() if not _BLOCK.fullmatch(name)}
    for sort, had in counts.items():
        wants = max(had, wanted[sort])
        sources = [index * had // wants for index in range(wants)]
        for index, source in enumerate(sources):
            copied = index > 0 and sources[index - 1] == source
            prefix = f"transformer.{sort}.{source}."
            for name in [name for name in tensors if name.startswith(prefix)]:
                rest = name.removeprefix(prefix)
                silent = copied and rest.startswith(_WAYS_OUT)
                grown[f"transformer.{sort}.{index}.{rest}"] = (
                    torch.zeros_like(tensors[name]) if silent else tensors[name].clone()
                )
    return grown
