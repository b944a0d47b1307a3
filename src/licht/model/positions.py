"""Where each token is: four-axis ids (t, h, w, l) and their rotary tables.

Shapes: L tokens, A the four axes, D head width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

REFERENCE_STRIDE = 10
"""Reference number n (from 1) stands at t = 10 n; the picture itself at t = 0."""


def text_ids(length: int) -> Tensor:
    """(L, 4) ids of text tokens: only the last axis counts up."""
    ids_LA = torch.zeros(length, 4, dtype=torch.long)
    ids_LA[:, 3] = torch.arange(length)
    return ids_LA


def image_ids(grid: tuple[int, int], t: int = 0) -> Tensor:
    """(L, 4) ids of a (rows, columns) grid of latent tokens in raster order at time `t`."""
    rows, columns = grid
    ids = torch.zeros(rows, columns, 4, dtype=torch.long)
    ids[..., 0] = t
    ids[..., 1] = torch.arange(rows)[:, None]
    ids[..., 2] = torch.arange(columns)[None, :]
    return ids.flatten(0, 1)


def reference_ids(grids: Sequence[tuple[int, int]]) -> Tensor:
    """(sum of L, 4) ids of references in list order: t = 10, 20, 30, ..."""
    return torch.cat([image_ids(grid, REFERENCE_STRIDE * (n + 1)) for n, grid in enumerate(grids)])


def rotary_table(ids_LA: Tensor, axes_dim: Sequence[int], theta: float) -> Tensor:
    """Complex (L, D/2) rotations: axis a turns its share of the head by id x theta^(-2i/d_a).

    Angles are computed in float64, the table is complex64.
    """
    device = ids_LA.device
    if device.type == "mps":  # it has no float64
        ids_LA = ids_LA.cpu()
    angles = []
    for axis, dim in enumerate(axes_dim):
        frequencies = theta ** -(torch.arange(0, dim, 2, dtype=torch.float64, device=ids_LA.device) / dim)
        angles.append(ids_LA[:, axis, None].double() * frequencies)
    angles_LD2 = torch.cat(angles, dim=-1)
    return torch.polar(torch.ones_like(angles_LD2), angles_LD2).to(torch.complex64).to(device)
