"""Fusing what the networks compute, block by block, with `torch.compile`."""

import torch
from torch import nn


def fuse_blocks(module: nn.Module, backend: str = "inductor") -> None:
    """Compile every block of `module`, in place; names of parameters stay as they are.

    Blocks, because all of one class share a compiled kernel, and one that takes any length: a whole network would be
    compiled anew for each size of picture, length of text and number of references.
    """
    for blocks in [child for child in module.modules() if isinstance(child, nn.ModuleList)]:
        for block in blocks:
            block.compile(dynamic=True, backend=backend)
            if hasattr(block, "forward_references"):
                block.forward_references = torch.compile(block.forward_references, dynamic=True, backend=backend)
