"""Points on solids: where a hit lies, its normal and its base colour.

Legend: K blocks of M hits; every block belongs to one part.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from licht.world import pack as k
from licht.world import shading as s
from licht.world.parts import BOX, TORUS
from licht.world.shapes import NORMAL, Vec, dot
from licht.world.trace import Blocks, Hits, Rays, Tables, column, kind_ranges, turn_in, turn_out, vector


@dataclass(frozen=True)
class Points:
    """Hits in blocks: place, normal, base colour and incoming direction in the world, all (K, M)."""

    part_K: k.Ints
    scene_K: Tensor
    world: Vec
    normal: Vec
    albedo: Vec
    direction: Vec

    def rows(self, index: Tensor) -> "Points":
        """Some of the blocks."""
        return Points(
            self.part_K[index.cpu().numpy()],
            self.scene_K[index],
            _rows(self.world, index),
            _rows(self.normal, index),
            _rows(self.albedo, index),
            _rows(self.direction, index),
        )


def _rows(vector_: Vec, index: Tensor) -> Vec:
    return vector_[0][index], vector_[1][index], vector_[2][index]


def _at(values: Tensor, position_KM: Tensor) -> Tensor:
    return values.flatten()[position_KM]


def points_of(blocks: Blocks, rays: Rays, hits: Hits, footprint_scale: float, tables: Tables) -> Points:
    """Look up everything about grouped hits. `footprint_scale` is the width of a sample at depth 1."""
    part = tables.parts_PC.index_select(0, blocks.part_index_K)
    scene_K = tables.indices(tables.packed.scene_of[blocks.part_K])
    position = blocks.position_KM
    width = rays.direction[0].shape[1]
    d: Vec = (_at(rays.direction[0], position), _at(rays.direction[1], position), _at(rays.direction[2], position))
    t = _at(hits.depth_NS, position)
    if rays.origin[0].shape[1] == 1:
        row = torch.div(position[:, :1], width, rounding_mode="floor")
        o: Vec = (rays.origin[0][row, 0], rays.origin[1][row, 0], rays.origin[2][row, 0])
    else:
        o = (_at(rays.origin[0], position), _at(rays.origin[1], position), _at(rays.origin[2], position))
    world: Vec = (o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2])
    center = vector(part, k.CENTER)
    x, z = turn_in(world[0] - center[0], world[2] - center[2], part)
    local: Vec = (x, world[1] - center[1], z)
    inner, normal = _normals(local, blocks, part, tables)
    slant = (dot(d, normal).abs() / dot(d, d).sqrt()).clamp(min=0.25)
    albedo = _albedo(local, inner, t * footprint_scale / slant, blocks, part, tables)
    return Points(blocks.part_K, scene_K, world, normal, albedo, d)


def _normals(local: Vec, blocks: Blocks, part: Tensor, tables: Tables) -> tuple[Vec, Vec]:
    """Normals in the part's frame and in the world."""
    inner = [torch.empty_like(local[0]) for _ in range(3)]
    dims = vector(part, k.DIMS)
    for kind, a, b in kind_ranges(blocks.part_K, tables.packed.kind):
        p: Vec = (local[0][a:b], local[1][a:b], local[2][a:b])
        found = NORMAL[kind](p, (dims[0][a:b], dims[1][a:b], dims[2][a:b]))
        for target, value in zip(inner, found, strict=True):
            target[a:b] = value
    x, z = turn_out(inner[0], inner[2], part)
    return (inner[0], inner[1], inner[2]), (x, inner[1], z)


def _albedo(local: Vec, inner: Vec, footprint: Tensor, blocks: Blocks, part: Tensor, tables: Tables) -> Vec:
    """The part's colour, or its second one where the pattern has it."""
    weight = torch.zeros_like(local[0])
    surface_K = tables.packed.surface[blocks.part_K]
    for surface in np.unique(surface_K[surface_K > 0]).tolist():
        chosen = np.flatnonzero(surface_K == surface)
        index = tables.indices(chosen)
        p, n = _rows(local, index), _rows(inner, index)
        some, fine = part[index], footprint[index]
        name = k.SURFACES[surface]
        if name == "striped":
            value = s.striped(p, some, fine)
        elif name == "checkered":
            value = _checkered(p, n, some, fine, tables.packed.kind[blocks.part_K[chosen]], tables)
        elif name == "dotted":
            value = s.dotted(p, *_dots(blocks.part_K[chosen], tables), column(some, k.DOT_RADIUS), fine)
        else:
            value = _printed(p, n, blocks.part_K[chosen], tables)
        weight.index_copy_(0, index, value)
    return s.mix3(vector(part, k.COLOR), vector(part, k.SECOND), weight)


def _checkered(p: Vec, n: Vec, part: Tensor, footprint: Tensor, kind_K: k.Ints, tables: Tables) -> Tensor:
    """Checkerboards by the kind of solid."""
    value = torch.empty_like(p[0])
    for kind in np.unique(kind_K).tolist():
        rows = tables.indices(np.flatnonzero(kind_K == kind))
        inside, fine = _rows(p, rows), footprint[rows]
        if kind == TORUS:
            value[rows] = s.checkered_torus(inside, part[rows], fine)
        elif kind == BOX:
            value[rows] = s.checkered_box(inside, _rows(n, rows), part[rows], fine)
        else:
            value[rows] = s.checkered_round(inside, _rows(n, rows), part[rows], fine)
    return value


def _dots(part_K: k.Ints, tables: Tables) -> tuple[Tensor]:
    """Dots of blocks, cut to the most that any of them has."""
    dots = tables.packed.dots[part_K]
    used = int((dots[..., 0] < k.FAR_DOT).sum(1).max())
    return (torch.from_numpy(dots[:, :used]).to(tables.device),)


def _printed(p: Vec, n: Vec, part_K: k.Ints, tables: Tables) -> Tensor:
    """Coverage of text on boards."""
    coverage = torch.zeros_like(p[0])
    for each in np.unique(part_K).tolist():
        texture = tables.packed.textures[each]
        if texture is not None:
            rows = tables.indices(np.flatnonzero(part_K == each))
            image = torch.from_numpy(texture).to(tables.device).float() * (1.0 / 255.0)
            half = vector(tables.parts_PC[each : each + 1], k.DIMS)
            coverage[rows] = s.printed(_rows(p, rows), _rows(n, rows), half, image)
    return coverage
