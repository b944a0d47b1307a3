"""The renderer: a batch of scenes into pictures, on a CPU or a GPU.

Camera rays are traced with several samples a pixel. The floor, the wall and the light on them are smooth or filtered
and are evaluated once a pixel. Solids are shaded at every sample, shiny and metal ones mirror the scene once.

Legend: B scenes, H rows, W columns, R tiles of 8 x 8 pixels, S samples in a tile, K blocks of M hits.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from licht.core.errors import InvalidRequest
from licht.world import pack as k
from licht.world import shading as s
from licht.world.camera import TAN_HALF_VIEW
from licht.world.lettering import overlay_mask
from licht.world.scene import Scene
from licht.world.shapes import Vec, dot
from licht.world.surface import Points, points_of
from licht.world.trace import Rays, Tables, column, group, trace, vector
from licht.world.vocabulary import MATERIALS, hex_of, srgb_of

_TILE: Final = k.TILE_PX
_METAL: Final = MATERIALS.index("metal")
_CPU_CHUNK_SAMPLES: Final = 4 * 65536
_GPU_CHUNK_SAMPLES: Final = 128 * 65536


def check_size(width_px: int, height_px: int) -> None:
    """Raise `InvalidRequest` unless both sides are multiples of 16 from 64 to 2048 pixels."""
    for name, side in (("width_px", width_px), ("height_px", height_px)):
        if side % 16 or not 64 <= side <= 2048:
            raise InvalidRequest(f"{name} is {side}; expected a multiple of 16 from 64 to 2048", field=name)


def _pixel_grid(packed: k.Packed, samples: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """X (R, S) and y (R, S) of all samples in pixels; in a row: sub-sample, line, column."""
    tile = torch.arange(len(packed.scenes) * packed.tiles, device=device) % packed.tiles
    x_R1 = (tile % packed.columns)[:, None] * float(_TILE)
    y_R1 = torch.div(tile, packed.columns, rounding_mode="floor")[:, None] * float(_TILE)
    pixel = torch.arange(_TILE * _TILE, device=device)
    sub = torch.arange(samples * samples, device=device)
    dx = (pixel % _TILE)[None, :] + ((sub % samples)[:, None] + 0.5) * (1.0 / samples)
    dy = torch.div(pixel, _TILE, rounding_mode="floor")[None, :] + (
        torch.div(sub, samples, rounding_mode="floor")[:, None] + 0.5
    ) * (1.0 / samples)
    return x_R1 + dx.reshape(1, -1), y_R1 + dy.reshape(1, -1)


def camera_rays(tables: Tables, samples: int) -> Rays:
    """Rays of all samples; directions have length 1 along the view, so that depths are distances from the camera."""
    packed = tables.packed
    x, y = _pixel_grid(packed, samples, tables.device)
    scene_R = torch.div(torch.arange(len(x), device=tables.device), packed.tiles, rounding_mode="floor")
    scene = tables.scenes_BC.index_select(0, scene_R)
    scale = TAN_HALF_VIEW / min(packed.width_px, packed.height_px)
    u = (2.0 * x - packed.width_px) * scale
    v = (packed.height_px - 2.0 * y) * scale - column(scene, k.LIFT)
    forward, up = vector(scene, k.FORWARD), vector(scene, k.UP)
    direction: Vec = (u, forward[1] + v * up[1], forward[2] + v * up[2])
    return Rays(vector(scene, k.POSITION), direction, scene_R)


def _floor_of_rays(rays: Rays, footprint_scale: float, tables: Tables, shaded: k.Pairs | None) -> Vec:
    """Lit floor or wall behind every ray (N, S); with `shaded`, parts cast shade on it."""
    packed, scene_N = tables.packed, rays.scene_N
    scene = tables.scenes_BC.index_select(0, scene_N)
    o, d = rays.origin, rays.direction
    length = dot(d, d).sqrt()
    down = d[1] < -1e-4
    t = torch.where(down, -o[1] / torch.where(down, d[1], -torch.ones_like(d[1])), torch.full_like(d[1], 50.0))
    t = t.clamp(max=50.0)
    x, z = o[0] + t * d[0], o[2] + t * d[2]
    footprint = t * footprint_scale * (length / d[1].abs().clamp(min=0.02))
    albedo: list[Tensor] = [torch.empty_like(x) for _ in range(3)]
    kinds = torch.from_numpy(packed.floor_kind).to(tables.device)[scene_N]
    for kind in np.unique(packed.floor_kind).tolist():
        rows = (kinds == kind).nonzero().squeeze(1)
        colors = s.floor_color(x[rows], z[rows], footprint[rows], scene[rows], kind)
        for channel, color in zip(albedo, colors, strict=True):
            channel.index_copy_(0, rows, color.expand(len(rows), x.shape[1]).contiguous())
    zero = torch.zeros_like(x)
    up: Vec = (zero, zero + 1.0, zero)
    if shaded is None:
        visible, open_ = zero + 1.0, zero + 1.0
    else:
        visible, open_ = s.shade_rows((x, zero, z), up, scene_N, shaded, tables)
    floor = s.lit((albedo[0], albedo[1], albedo[2]), up, visible, open_, scene)
    spot = s.spot_share(x, z, scene)
    wall = s.wall_color(d[1] / length, scene)
    share = torch.where(down, s.wall_share(z, scene), zero + 1.0)
    return s.mix3((floor[0] * spot, floor[1] * spot, floor[2] * spot), wall, share)


def _shade_pairs(points: Points, tables: Tables) -> k.Pairs:
    """Which parts can shade which blocks: those whose shadow, or whose near surroundings, reach the block's part."""
    packed = tables.packed
    center, radius = packed.parts[:, k.CENTER : k.CENTER + 3], packed.radius
    light = packed.scenes[packed.scene_of, k.LIGHT : k.LIGHT + 3]
    caster, receiver = _same_scene(packed)
    rel = center[receiver] - center[caster]
    behind = np.minimum((rel * light[caster]).sum(1), 0.0)
    off = np.sqrt(((rel - behind[:, None] * light[caster]) ** 2).sum(1))
    near = off < radius[caster] + radius[receiver] + k.CONTACT - behind * k.PENUMBRA
    return _block_pairs(points.part_K, caster[near], receiver[near])


def _same_scene(packed: k.Packed) -> tuple[k.Ints, k.Ints]:
    """All ordered pairs (a, b) of different parts of one scene."""
    first, second = np.nonzero(packed.scene_of[:, None] == packed.scene_of[None, :])
    different = first != second
    return first[different], second[different]


def _block_pairs(part_K: k.Ints, other: k.Ints, own: k.Ints) -> k.Pairs:
    """Pairs (block, other part) for all blocks of the parts `own`."""
    order = np.argsort(own, kind="stable")
    own, other = own[order], other[order]
    first, last = np.searchsorted(own, part_K, "left"), np.searchsorted(own, part_K, "right")
    counts = last - first
    row = np.repeat(np.arange(len(part_K)), counts)
    within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return k.make_pairs(row, other[np.repeat(first, counts) + within])


def _lit_points(points: Points, scene: Tensor, visible: Tensor, open_: Tensor) -> Vec:
    """Diffuse light on points, the floor near below darkening them a little."""
    grounded = 0.72 + 0.28 * s.smooth(points.world[1] * 2.5)
    return s.lit(points.albedo, points.normal, visible, open_ * grounded, scene)


def _shade(points: Points, tables: Tables, footprint_scale: float) -> Vec:
    """Colour of points on solids in linear light, mirrors included."""
    scene = tables.scenes_BC.index_select(0, points.scene_K)
    visible, open_ = s.shade_rows(points.world, points.normal, points.scene_K, _shade_pairs(points, tables), tables)
    color = _lit_points(points, scene, visible, open_)
    material_K = tables.packed.material[points.part_K]
    mirrors = np.flatnonzero(material_K > 0)
    if len(mirrors):
        index = tables.indices(mirrors)
        metal = tables.indices(material_K[mirrors] == _METAL)[:, None]
        some = points.rows(index)
        color_some: Vec = (color[0][index], color[1][index], color[2][index])
        mirrored = _mirror(some, color_some, visible[index], open_[index], metal, tables, footprint_scale)
        for channel, value in zip(color, mirrored, strict=True):
            channel.index_copy_(0, index, value)
    spot = s.spot_share(points.world[0], points.world[2], scene)
    return color[0] * spot, color[1] * spot, color[2] * spot


def _mirror(
    points: Points, color: Vec, visible: Tensor, open_: Tensor, metal: Tensor, tables: Tables, footprint_scale: float
) -> Vec:
    """Add the highlight and the mirrored scene: a clear coat on shiny things, the whole colour of metal ones."""
    scene = tables.scenes_BC.index_select(0, points.scene_K)
    d, n = points.direction, points.normal
    inverse = 1.0 / dot(d, d).sqrt()
    d = (d[0] * inverse, d[1] * inverse, d[2] * inverse)
    facing = dot(d, n).clamp(max=0.0)
    r: Vec = (d[0] - 2.0 * facing * n[0], d[1] - 2.0 * facing * n[1], d[2] - 2.0 * facing * n[2])
    start: Vec = tuple(points.world[i] + 2e-3 * n[i] for i in range(3))  # type: ignore[assignment] # of length three
    seen = _mirrored(Rays(start, r, points.scene_K), points, tables, footprint_scale)
    grazing = 1.0 + facing
    fresnel = grazing * grazing
    fresnel = 0.05 + 0.55 * fresnel * fresnel * grazing
    light = vector(scene, k.LIGHT)
    half = (light[0] - d[0], light[1] - d[1], light[2] - d[2])
    glint = (dot(n, half) / (dot(half, half).sqrt() + 1e-6)).clamp(min=0.0)
    for _ in range(7):
        glint = glint * glint
    glint = glint * visible * 0.9
    key, albedo = vector(scene, k.KEY), points.albedo
    mirrored = []
    for i in range(3):
        coat = color[i] * (1.0 - fresnel) + seen[i] * fresnel * open_ + glint * key[i]
        tint = albedo[i] + (1.0 - albedo[i]) * fresnel * 0.6
        solid = 0.22 * color[i] + 0.92 * tint * seen[i] * (0.4 + 0.6 * open_) + glint * key[i] * 0.8
        mirrored.append(torch.where(metal, solid, coat))
    return mirrored[0], mirrored[1], mirrored[2]


def _mirrored(rays: Rays, points: Points, tables: Tables, footprint_scale: float) -> Vec:
    """What mirrored rays see: other solids (diffusely lit), the floor, or the studio."""
    packed = tables.packed
    scene = tables.scenes_BC.index_select(0, rays.scene_N)
    floor = _floor_of_rays(rays, footprint_scale * 3.0, tables, None)
    above = s.studio(rays.direction, scene)
    share = s.smooth(rays.direction[1] * 8.0 + 0.5)
    near = s.smooth(points.world[1] * 1.2 + 0.25)
    seen = [s.mix(floor[i] * (0.35 + 0.65 * near), above[i], share) for i in range(3)]
    pairs = _block_pairs(points.part_K, *_same_scene(packed))
    hits = trace(rays, pairs, tables)
    blocks = group(hits, pairs, tables)
    if len(blocks.part_K):
        there = points_of(blocks, rays, hits, footprint_scale * 3.0, tables)
        full = torch.ones_like(there.world[0])
        color = _lit_points(there, tables.scenes_BC.index_select(0, there.scene_K), full, full)
        for target, value in zip(seen, color, strict=True):
            target.view(-1).index_copy_(0, blocks.position_KM.flatten(), value.flatten())
    return seen[0], seen[1], seen[2]


def _draw(tables: Tables, samples: int) -> Tensor:
    """Linear pictures (B, H, W, 3) in [0, 1], before lettering that lies over the scene."""
    packed = tables.packed
    rays = camera_rays(tables, samples)
    hits = trace(rays, packed.camera_pairs, tables)
    centers = rays if samples == 1 else camera_rays(tables, 1)
    pixel = 2 * TAN_HALF_VIEW / min(packed.width_px, packed.height_px)
    ground = _floor_of_rays(centers, pixel, tables, packed.floor_pairs)
    subs = samples * samples
    shape = (len(packed.scenes) * packed.tiles, subs, _TILE * _TILE)
    layers = [channel[:, None, :].expand(shape).reshape(shape[0], -1).contiguous() for channel in ground]
    blocks = group(hits, packed.camera_pairs, tables)
    if len(blocks.part_K):
        points = points_of(blocks, rays, hits, pixel / samples, tables)
        color = _shade(points, tables, pixel)
        for layer, value in zip(layers, color, strict=True):
            layer.view(-1).index_copy_(0, blocks.position_KM.flatten(), value.flatten())
    rows, columns = packed.height_px // _TILE, packed.columns
    pictures = []
    for layer in layers:
        bent = s.shoulder(layer).view(shape)
        total = bent[:, 0]
        for sub in range(1, subs):
            total = total + bent[:, sub]
        tiled = (total * (1.0 / subs)).view(-1, rows, columns, _TILE, _TILE)
        pictures.append(tiled.permute(0, 1, 3, 2, 4).reshape(-1, packed.height_px, packed.width_px))
    return torch.stack(pictures, 3)


def _write_over(image_BHWC: Tensor, scenes: Sequence[Scene], width_px: int, height_px: int) -> None:
    """Lay the lettering that is not on a sign over sRGB pictures, in place."""
    for index, scene in enumerate(scenes):
        lettering = scene.lettering
        if lettering is None or lettering.place == "sign":
            continue
        mask = torch.from_numpy(overlay_mask(lettering, width_px, height_px)).to(image_BHWC.device)
        share = (mask.float() * (1.0 / 255.0))[..., None]
        color = torch.tensor(srgb_of(hex_of(lettering.color)), device=image_BHWC.device)
        image_BHWC[index] = s.mix(image_BHWC[index], color, share)


def chunks(count: int, samples_each: int, device: torch.device) -> list[range]:
    """Split `count` pictures so that a chunk stays in the cache of a CPU, or fills a GPU."""
    budget = _CPU_CHUNK_SAMPLES if device.type == "cpu" else _GPU_CHUNK_SAMPLES
    step = max(1, budget // samples_each)
    return [range(start, min(start + step, count)) for start in range(0, count, step)]


def render_float(
    scenes: Sequence[Scene], width_px: int, height_px: int, *, samples: int = 2, device: str | torch.device = "cpu"
) -> Tensor:
    """Pictures of scenes as sRGB float32 (B, H, W, 3) in [0, 1] on `device`.

    `samples` is the number of samples a pixel in each direction (2 means four). Raises `InvalidRequest` for a size
    that cannot be drawn.
    """
    check_size(width_px, height_px)
    target = torch.device(device)
    images = torch.empty((len(scenes), height_px, width_px, 3), device=target)
    with torch.inference_mode():
        for chunk in chunks(len(scenes), width_px * height_px * samples * samples, target):
            some = [scenes[index] for index in chunk]
            tables = Tables.of(k.pack(some, width_px, height_px), target)
            encoded = s.encode(_draw(tables, samples))
            _write_over(encoded, some, width_px, height_px)
            images[chunk.start : chunk.stop] = encoded.clamp(0.0, 1.0)
    return images


def render(
    scenes: Sequence[Scene], width_px: int, height_px: int, *, samples: int = 2, device: str | torch.device = "cpu"
) -> Tensor:
    """Pictures of scenes as uint8 (B, H, W, 3) on `device`; see `render_float`.

    A picture is the same in every batch, and on every device within 1.
    """
    return (render_float(scenes, width_px, height_px, samples=samples, device=device) * 255.0).round().to(torch.uint8)
