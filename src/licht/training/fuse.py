"""Fusing what the networks compute, block by block, with `torch.compile`."""

import torch
from torch import nn


def fuse_blocks(module: nn.Module, backend: str = "inductor") -> None:
    """Compile every block of `module`, in place; names of parameters stay as they are.

    Blocks, because all of one class share a compiled kernel, and one that takes any length: a whole network would be
    compiled anew for each size of picture, length of text and number of references.
    """
    for child in module.modules():
        if not isinstance(child, nn.ModuleList):
            continue
        for block in child:
            block.compile(dynamic=True, backend=backend)
            with_references = getattr(block, "forward_references", None)
            if with_references is not None:
                # set past nn.Module, which knows its attributes as tensors and modules only
                object.__setattr__(
                    block, "forward_references", torch.compile(with_references, dynamic=True, backend=backend)
                )
