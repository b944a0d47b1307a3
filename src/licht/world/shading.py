"""Light on surfaces: patterns, soft shadows, contact darkening, floor, wall and the studio that shiny things mirror.

Every decision uses exactly rounded operations only (see `shapes`), every edge of a pattern is filtered over the
footprint of a sample, so pictures are equal on all devices and the same in every batch.

Legend: N rows, S points in a row; parameters are (N, 1).
"""

from typing import Final

import torch
from torch import Tensor

from licht.world import pack as k
from licht.world.parts import TORUS
from licht.world.shapes import DISTANCE, Vec, dot
from licht.world.trace import Tables, column, pick, to_frame, vector

_GOLDEN: Final = 0.6180339887498949
_SEARCH_STEPS: Final = 9
_PENUMBRA_FLOOR: Final = 0.02
_TILE_SIDE: Final = 0.8
_PLANK: Final = 0.55
_JOINT: Final = 0.022


def smooth(x: Tensor) -> Tensor:
    """The cubic step from 0 to 1."""
    x = x.clamp(0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def mix(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """`a` where share is 0, `b` where it is 1."""
    return a + (b - a) * share


def mix3(a: Vec, b: Vec, share: Tensor) -> Vec:
    """`mix` of two colours."""
    return mix(a[0], b[0], share), mix(a[1], b[1], share), mix(a[2], b[2], share)


# Patterns -------------------------------------------------------------------------------------------------------------


def _wave(x: Tensor) -> Tensor:
    """Distance from the nearest whole number, 0 to 0.5."""
    return (x - x.round()).abs()


def striped(p: Vec, part: Tensor, footprint: Tensor) -> Tensor:
    """Weight of the second colour of horizontal bands, counted from the top."""
    period = 0.36 * column(part, k.SCALE)
    offset = _wave((column(part, k.HALF_Y) - p[1]) / period)
    return ((offset - 0.25) * period / footprint + 0.5).clamp(0.0, 1.0)


def _side(sine: Tensor, reach: Tensor | float, footprint: Tensor) -> Tensor:
    """-1 on one side of a boundary, 1 on the other, filtered; `sine` crosses 0 there with slope 1 / reach."""
    return (sine * reach / footprint).clamp(-0.5, 0.5) * 2.0


def _around(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(radius, sine, cosine) of four times the angle around an axis, without any angle."""
    square = x * x + z * z + 1e-9
    inverse = 1.0 / (square * square)
    product, difference = x * z, x * x - z * z
    return square.sqrt(), 4.0 * product * difference * inverse, 1.0 - 8.0 * product * product * inverse


def checkered_box(p: Vec, n: Vec, part: Tensor, footprint: Tensor) -> Tensor:
    """Weight of the second colour of a checkerboard on a box: four cells along a side."""
    cell = 0.25 * column(part, k.SCALE)
    product = torch.ones_like(p[0])
    for axis in range(3):
        side = _side(_wave(p[axis] / (2.0 * cell)) - 0.25, 2.0 * cell, footprint)
        product = product * torch.where(n[axis].abs() > 0.9, torch.ones_like(side), side)
    return 0.5 + 0.5 * product


def checkered_round(p: Vec, n: Vec, part: Tensor, footprint: Tensor) -> Tensor:
    """Weight of the second colour of eight sectors crossed with bands, on what is round about y."""
    band = 0.6 * column(part, k.SCALE)
    radius, sine, _ = _around(p[0], p[2])
    side = _side(_wave((column(part, k.HALF_Y) - p[1]) / band) - 0.25, band, footprint)
    side = torch.where(n[1].abs() > 0.98, torch.ones_like(side), side)
    return 0.5 + 0.5 * side * _side(sine, 0.25 * radius, footprint)


def checkered_torus(p: Vec, part: Tensor, footprint: Tensor) -> Tensor:
    """Weight of the second colour of sixteen sectors crossed with quarters of the tube."""
    radius, sine, cosine = _around(p[0], p[1])
    tube = column(part, k.DIMS + 1)
    quarter = 2.0 * p[2] * (radius - column(part, k.DIMS)) / (tube * tube)
    return 0.5 + 0.5 * _side(quarter, 0.5 * tube, footprint) * _side(2.0 * sine * cosine, 0.125 * radius, footprint)


def dotted(p: Vec, dots_ND3: Tensor, radius: Tensor, footprint: Tensor) -> Tensor:
    """Weight of the second colour of round dots around given points."""
    nearest = torch.full_like(p[0], 1e9)
    for index in range(dots_ND3.shape[1]):
        x, y, z = (p[axis] - dots_ND3[:, index, axis : axis + 1] for axis in range(3))
        nearest = torch.minimum(nearest, x * x + y * y + z * z)
    return ((radius - nearest.sqrt()) / footprint + 0.5).clamp(0.0, 1.0)


def printed(p: Vec, n: Vec, half: Vec, texture_HW: Tensor) -> Tensor:
    """Coverage of text on the front face of one board, by bilinear look-up."""
    height, width = texture_HW.shape
    column_px = ((p[0] + half[0]) / (2.0 * half[0]) * width - 0.5).clamp(0.0, width - 1.001)
    row_px = ((half[1] - p[1]) / (2.0 * half[1]) * height - 0.5).clamp(0.0, height - 1.001)
    x, y = column_px.floor(), row_px.floor()
    right, down = column_px - x, row_px - y
    at = (y * width + x).long()
    flat = texture_HW.flatten()
    upper = mix(flat[at], flat[at + 1], right)
    lower = mix(flat[at + width], flat[at + width + 1], right)
    return torch.where(n[2] > 0.9, mix(upper, lower, down), torch.zeros_like(upper))


# Shadows --------------------------------------------------------------------------------------------------------------


def _least(kind: int, o: Vec, d: Vec, dims: Vec, low: Tensor, high: Tensor) -> Tensor:
    """Least clearance of rays o + t d over t in [low, high], in radii of the penumbra at that distance.

    Golden-section search: the signed distance to a convex solid is convex along a ray.
    """
    distance = DISTANCE[kind]

    def clearance(t: Tensor) -> Tensor:
        gap = distance((o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]), dims)
        return gap / (t * k.PENUMBRA + _PENUMBRA_FLOOR)

    width = high - low
    left, right = low + width * (1.0 - _GOLDEN), low + width * _GOLDEN
    at_left, at_right = clearance(left), clearance(right)
    best = torch.minimum(at_left, at_right)
    for _ in range(_SEARCH_STEPS):
        lower = at_left < at_right
        low, width = torch.where(lower, low, left), width * _GOLDEN
        fresh = low + width * torch.where(lower, 1.0 - _GOLDEN, _GOLDEN)
        value = clearance(fresh)
        left, right = torch.where(lower, fresh, right), torch.where(lower, left, fresh)
        at_left, at_right = torch.where(lower, value, at_right), torch.where(lower, at_left, value)
        best = torch.minimum(best, value)
    return best


def shade_of(points: Vec, normals: Vec, light: Vec, part: Tensor, radius: Tensor, kind: int) -> tuple[Tensor, Tensor]:
    """(visibility of the key light, openness to the fill light), each 0..1, that parts leave to points."""
    o, d = to_frame(points, light, part, kind)
    dims = vector(part, k.DIMS)
    middle = -(dot(o, d))
    low = (middle - radius).clamp(min=0.0)
    high = torch.maximum(middle + radius, low + 1e-3)
    if kind == TORUS:
        split = torch.minimum(torch.maximum(middle, low), high)
        least = torch.minimum(_least(kind, o, d, dims, low, split), _least(kind, o, d, dims, split, high))
    else:
        least = _least(kind, o, d, dims, low, high)
    visible = smooth(0.5 + 0.5 * least)
    _, n = to_frame(points, normals, part, kind)
    open_ = torch.ones_like(visible)
    for reach, strength in ((0.4 * k.CONTACT, 0.34), (k.CONTACT, 0.30)):
        gap = DISTANCE[kind]((o[0] + reach * n[0], o[1] + reach * n[1], o[2] + reach * n[2]), dims)
        open_ = open_ * (1.0 - strength * ((reach - gap) * (1.0 / reach)).clamp(0.0, 1.0))
    return visible, open_


def shade_rows(points: Vec, normals: Vec, scene_N: Tensor, pairs: k.Pairs, tables: Tables) -> tuple[Tensor, Tensor]:
    """Product over all paired parts of what each leaves: (visibility, openness), both (N, S)."""
    visible_NS, open_NS = torch.ones_like(points[0]), torch.ones_like(points[0])
    if len(pairs.row) == 0:
        return visible_NS, open_NS
    row_T, part_T = tables.indices(pairs.row), tables.indices(pairs.part)
    visible_TS = torch.empty((len(pairs.row), points[0].shape[1]), device=tables.device)
    open_TS = torch.empty_like(visible_TS)
    radius_P = torch.from_numpy(tables.packed.radius).to(tables.device)
    for kind, start, stop in pairs.ranges(tables.packed.kind):
        row, index = row_T[start:stop], part_T[start:stop]
        part = tables.parts_PC.index_select(0, index)
        light = vector(tables.scenes_BC.index_select(0, scene_N[row]), k.LIGHT)
        reach = radius_P[index][:, None] + k.CONTACT
        shade = shade_of(pick(points, row), pick(normals, row), light, part, reach, kind)
        visible_TS[start:stop], open_TS[start:stop] = shade
    for rank in pairs.ranks:
        which = tables.indices(rank)
        row = row_T[which]
        for buffer, values in ((visible_NS, visible_TS), (open_NS, open_TS)):
            buffer.index_copy_(0, row, buffer.index_select(0, row) * values.index_select(0, which))
    return visible_NS, open_NS


# Floor, wall and light ------------------------------------------------------------------------------------------------


def spot_share(x: Tensor, z: Tensor, scene: Tensor) -> Tensor:
    """Share of the light that a spotlight leaves at a place: 1 without one."""
    wide = 0.75 * column(scene, k.EXTENT)
    dx, dz = x - column(scene, k.SPOT), z
    far = (dx * dx + dz * dz) / (wide * wide)
    return 1.0 - column(scene, k.SPOT_ON) * 0.62 * (1.0 - 1.0 / (1.0 + far * far))


def floor_color(x: Tensor, z: Tensor, footprint: Tensor, scene: Tensor, kind: int) -> Vec:
    """Colour of the floor: plain, checkered or wooden planks; patterns dissolve where they become too fine."""
    first, second = vector(scene, k.FLOOR), vector(scene, k.FLOOR_SECOND)
    if kind == 0:
        return first
    if kind == 1:
        fade = (1.0 - footprint * (2.0 / _TILE_SIDE)).clamp(0.0, 1.0)
        product = fade
        for axis in (x + 0.5 * _TILE_SIDE, z + 0.5 * _TILE_SIDE):
            offset = _wave(axis * (0.5 / _TILE_SIDE)) - 0.25
            product = product * (offset * (2.0 * _TILE_SIDE) / footprint).clamp(-0.5, 0.5) * 2.0
        return mix3(first, second, 0.5 - 0.5 * product)
    line = z * (1.0 / _PLANK)
    plank = line.floor()
    shift = plank * 0.381966
    shift = (shift - shift.floor()) * 2.0
    along = (x * 0.4 + shift).floor()
    tone = plank * 0.618034 + along * 0.347
    tone = tone - tone.floor()
    fade = (1.0 - footprint * (1.0 / _PLANK)).clamp(0.0, 1.0)
    gap = _wave(line) * _PLANK
    joint = ((_JOINT - gap) / footprint + 0.5).clamp(0.0, 1.0) * (_JOINT / (footprint + _JOINT))
    r, g, b = mix3(first, second, 0.5 + (tone - 0.5) * fade)
    dark = 1.0 - 0.55 * joint * fade
    return r * dark, g * dark, b * dark


def wall_color(rise: Tensor, scene: Tensor) -> Vec:
    """Lit wall behind the floor, in the floor's mean tone, a little darker above. `rise` is the ray's dy / length."""
    first, second = vector(scene, k.FLOOR), vector(scene, k.FLOOR_SECOND)
    key, fill = vector(scene, k.KEY), vector(scene, k.FILL)
    light_y = column(scene, k.LIGHT + 1)
    share = 1.0 - 0.30 * smooth(rise * 2.2 + 0.15)
    share = share * (1.0 - column(scene, k.SPOT_ON) * 0.55)
    r, g, b = (0.5 * (first[i] + second[i]) * (fill[i] + key[i] * light_y) * share for i in range(3))
    return r, g, b


def wall_share(z: Tensor, scene: Tensor) -> Tensor:
    """How far the floor at depth z has turned into the wall."""
    extent = column(scene, k.EXTENT)
    return smooth((-z - 0.9 * extent - 0.6) / (2.2 * extent))


def lit(albedo: Vec, n: Vec, visible: Tensor, open_: Tensor, scene: Tensor) -> Vec:
    """Diffuse light: the key light, a fill from the sky and a bounce from the floor."""
    key, fill = vector(scene, k.KEY), vector(scene, k.FILL)
    floor, floor_second = vector(scene, k.FLOOR), vector(scene, k.FLOOR_SECOND)
    facing = dot(n, vector(scene, k.LIGHT)).clamp(min=0.0) * visible
    up = 0.5 + 0.5 * n[1]
    sky, ground = (0.44 + 0.56 * up) * open_, (1.0 - up) * 0.30 * open_
    r, g, b = (
        albedo[i] * (key[i] * facing + fill[i] * (sky + ground * (floor[i] + floor_second[i]))) for i in range(3)
    )
    return r, g, b


def studio(direction: Vec, scene: Tensor) -> Vec:
    """What a mirrored ray sees that meets nothing.

    The wall behind the scene, a darker room behind the camera, a bright ceiling, a strip lamp on either side, and the
    key light as a soft panel.
    """
    wall = wall_color(direction[1], scene)
    room = 1.0 - 0.65 * smooth(direction[2] * 1.2 + 0.3)
    ceiling = 0.75 * smooth(direction[1] * 1.6 - 0.45)
    strip = smooth((direction[0].abs() - 0.72) * 7.0) * smooth((0.97 - direction[0].abs()) * 14.0)
    strip = strip * smooth(direction[1] * 6.0 - 0.1)
    lamp = 1.6 * smooth((dot(direction, vector(scene, k.LIGHT)) - 0.86) * 12.0)
    key = vector(scene, k.KEY)
    r, g, b = (mix(wall[i] * room, ceiling * 0.0 + 0.95, ceiling) + key[i] * (lamp + 0.75 * strip) for i in range(3))
    return r, g, b


def shoulder(x: Tensor) -> Tensor:
    """Linear up to 0.8, then bent so that nothing exceeds 1."""
    over = (x - 0.8).clamp(min=0.0)
    return x.clamp(max=0.8) + 0.2 * over / (over + 0.2)


def encode(x: Tensor) -> Tensor:
    """Linear light to sRGB with roots only (equal on all devices); within 0.002 of the standard's curve."""
    first = x.sqrt()
    second = first.sqrt()
    third = second.sqrt()
    curve = 0.662002687 * first + 0.684122060 * second - 0.323583601 * third - 0.0225411470 * x
    return torch.where(x < 0.0031308, 12.92 * x, curve)
