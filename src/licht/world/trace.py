"""Rays against solids: who is hit first, and the hits regrouped into blocks of one solid each.

Legend: N rows of rays that share one scene, S rays in a row, T pairs of a row and a part, K blocks of M hits.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from licht.world import pack as k
from licht.world.parts import BOX, TORUS
from licht.world.shapes import ENTER, FAR, Vec

BLOCK: Final = 128
"""Hits in a block."""


@dataclass(frozen=True)
class Tables:
    """The tables of a batch on the device that draws it, and the host's copy of what decides the grouping."""

    packed: k.Packed
    parts_PC: Tensor
    scenes_BC: Tensor
    device: torch.device

    @classmethod
    def of(cls, packed: k.Packed, device: torch.device) -> "Tables":
        """Copy the tables to the device."""
        parts, scenes = torch.from_numpy(packed.parts).to(device), torch.from_numpy(packed.scenes).to(device)
        return cls(packed, parts, scenes, device)

    def indices(self, values: k.Ints) -> Tensor:
        """Host indices on the device."""
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)


@dataclass(frozen=True)
class Rays:
    """Origins (N, 1) or (N, S) and directions (N, S), and the scene of every row."""

    origin: Vec
    direction: Vec
    scene_N: Tensor

    def rows(self, index: Tensor) -> tuple[Vec, Vec]:
        """Origins and directions of some rows."""
        return pick(self.origin, index), pick(self.direction, index)


@dataclass(frozen=True)
class Hits:
    """Depth (FAR where nothing is hit) and part (-1 where nothing is hit) of every ray, both (N, S)."""

    depth_NS: Tensor
    part_NS: Tensor


@dataclass(frozen=True)
class Blocks:
    """Hits grouped by part. `part_K` is on the host; `position_KM` points into the flattened rays."""

    part_K: k.Ints
    part_index_K: Tensor
    position_KM: Tensor


def pick(vector: Vec, index: Tensor) -> Vec:
    """Rows of three tensors."""
    return vector[0].index_select(0, index), vector[1].index_select(0, index), vector[2].index_select(0, index)


def column(table: Tensor, first: int) -> Tensor:
    """One column as (rows, 1)."""
    return table[:, first : first + 1]


def vector(table: Tensor, first: int) -> Vec:
    """Three neighbouring columns as vectors of (rows, 1)."""
    return column(table, first), column(table, first + 1), column(table, first + 2)


def turn_in(x: Tensor, z: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
    """X and z of a direction in the frame of a part."""
    cosine, sine = column(part, k.COSINE), column(part, k.SINE)
    return cosine * x - sine * z, sine * x + cosine * z


def turn_out(x: Tensor, z: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
    """X and z in the world of a direction in the frame of a part."""
    cosine, sine = column(part, k.COSINE), column(part, k.SINE)
    return cosine * x + sine * z, cosine * z - sine * x


def to_frame(origin: Vec, direction: Vec, part: Tensor, kind: int) -> tuple[Vec, Vec]:
    """Rays relative to parts; turned only for the kinds that are not round about y."""
    center = vector(part, k.CENTER)
    o: Vec = (origin[0] - center[0], origin[1] - center[1], origin[2] - center[2])
    if kind not in {BOX, TORUS}:
        return o, direction
    ox, oz = turn_in(o[0], o[2], part)
    dx, dz = turn_in(direction[0], direction[2], part)
    return (ox, o[1], oz), (dx, direction[1], dz)


def trace(rays: Rays, pairs: k.Pairs, tables: Tables) -> Hits:
    """First hit of every ray among the parts it is paired with."""
    shape = rays.direction[0].shape
    depth_NS = torch.full(shape, FAR, device=tables.device)
    part_NS = torch.full(shape, -1, dtype=torch.int32, device=tables.device)
    if len(pairs.row) == 0:
        return Hits(depth_NS, part_NS)
    row_T, part_T = tables.indices(pairs.row), tables.indices(pairs.part)
    depth_TS = torch.empty((len(pairs.row), shape[1]), device=tables.device)
    for kind, start, stop in pairs.ranges(tables.packed.kind):
        part = tables.parts_PC.index_select(0, part_T[start:stop])
        origin, direction = rays.rows(row_T[start:stop])
        depth_TS[start:stop] = ENTER[kind](*to_frame(origin, direction, part, kind), vector(part, k.DIMS))
    id_T = part_T.to(torch.int32)[:, None]
    for rank in pairs.ranks:
        which = tables.indices(rank)
        row = row_T[which]
        new, old = depth_TS.index_select(0, which), depth_NS.index_select(0, row)
        closer = new < old
        depth_NS.index_copy_(0, row, torch.where(closer, new, old))
        part_NS.index_copy_(0, row, torch.where(closer, id_T.index_select(0, which), part_NS.index_select(0, row)))
    return Hits(depth_NS, part_NS)


def group(hits: Hits, pairs: k.Pairs, tables: Tables) -> Blocks:
    """Regroup hits by the part that was hit, in blocks of BLOCK; the last block of a part repeats its last hit."""
    row_T, part_T = tables.indices(pairs.row), tables.indices(pairs.part)
    wins_TS = hits.part_NS.index_select(0, row_T) == part_T.to(torch.int32)[:, None]
    width = wins_TS.shape[1] if len(pairs.row) else BLOCK
    found = wins_TS.flatten().nonzero().squeeze(1)
    position = row_T[found // width] * width + found % width
    counts = np.bincount(pairs.part, weights=wins_TS.sum(1).cpu().numpy(), minlength=len(tables.packed.kind))
    counts = counts.astype(np.int64)
    blocks = -(-counts // BLOCK)
    part_K = np.repeat(np.arange(len(counts)), blocks)
    ends = np.cumsum(counts)
    within = np.arange(len(part_K)) - np.repeat(np.cumsum(blocks) - blocks, blocks)
    first = tables.indices((ends - counts)[part_K] + within * BLOCK)[:, None]
    last = tables.indices(ends[part_K] - 1)[:, None]
    lane = torch.arange(BLOCK, device=tables.device)[None, :]
    return Blocks(part_K, tables.indices(part_K), position[torch.minimum(first + lane, last)])


def kind_ranges(part_K: k.Ints, kind_of_part: k.Ints) -> list[tuple[int, int, int]]:
    """(kind, first block, end) of every kind of solid among blocks sorted by part."""
    return k.Pairs(part_K, part_K, ()).ranges(kind_of_part) if len(part_K) else []
