"""LoRA files with random factors in every dialect."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from licht.model.transformer import Flux2Transformer
from tests.support import models

OFFICIAL = {
    name: (layer.out_features, layer.in_features)
    for name, layer in Flux2Transformer(models.TRANSFORMER).named_modules()
    if isinstance(layer, nn.Linear)
}
"""Official name -> (outputs, inputs) of every linear of the small model."""
BLOCKS = [name for name in OFFICIAL if name.startswith(("double_blocks", "single_blocks"))]
RANK = 4


def factors(shape: tuple[int, int], seed: int, rank: int = RANK) -> tuple[Tensor, Tensor]:
    """(down, up) of a change that is felt."""
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, shape[1], generator=generator) * shape[1] ** -0.5
    return down, torch.randn(shape[0], rank, generator=generator) * 0.3


def low_rank(
    names: Iterable[str], pattern: str, parts: tuple[str, str], alpha: float | None = None
) -> dict[str, Tensor]:
    """Tensors for the official layers `names`: their keys are `pattern` with the name, then each of `parts`."""
    tensors = {}
    for seed, name in enumerate(names):
        key = pattern.format(name=name, flat=name.replace(".", "_"))
        tensors[key + parts[0]], tensors[key + parts[1]] = factors(OFFICIAL[name], seed)
        if alpha is not None:
            tensors[key + ".alpha"] = torch.tensor(alpha)
    return tensors


def kronecker(shape: tuple[int, int], seed: int, decomposed: bool) -> dict[str, Tensor]:
    """The parts of a LoKr change; the left factor is 4 rows and 4 columns."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = shape[0] // 4, shape[1] // 4
    parts = {"lokr_w1": torch.randn(4, 4, generator=generator) * 0.3}
    if decomposed:
        parts["lokr_w2_a"] = torch.randn(rows, 2, generator=generator) * 0.3
        parts["lokr_w2_b"] = torch.randn(2, columns, generator=generator) * 0.3
        parts["alpha"] = torch.tensor(1.0)
    else:
        parts["lokr_w2"] = torch.randn(rows, columns, generator=generator) * 0.2
        parts["alpha"] = torch.tensor(9999.0)
    return parts


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """One file."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, dict(metadata or {}))
    return path
