"""Scenes as tables of numbers, and the lists of which rays have to be tried against which solid.

Everything here is decided once on the host, in numpy, so that drawing is the same few tensor operations on any device.

Legend: B scenes, P parts of all scenes together (sorted by kind, so that each kind is one range), R tiles of all
pictures together, T pairs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from licht.world import vocabulary as v
from licht.world.camera import TAN_HALF_VIEW, View, view_of
from licht.world.lettering import SIGN_CAP_HEIGHT, board_texture
from licht.world.parts import BOX, CAPSULE, CONE, CYLINDER, MAX_DOTS, SPHERE, TORUS, Part, parts_of
from licht.world.scene import Light, Scene

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

TILE_PX: Final = 8
PENUMBRA: Final = 0.11
"""Tangent of the angular radius of the key light."""
CONTACT: Final = 0.4
"""Reach in world units of the darkening where two things nearly touch."""

SURFACES: Final = ("plain", "striped", "checkered", "dotted", "text")
SPOT_X: Final = {"left": -1.2, "middle": 0.0, "right": 1.2}
FAR_DOT: Final = 1e3
_BOUNDS: Final = 1.06

# Columns of the table of parts.
CENTER: Final = 0
DIMS: Final = 3
COSINE: Final = 6
SINE: Final = 7
COLOR: Final = 8
SECOND: Final = 11
SCALE: Final = 14
DOT_RADIUS: Final = 15
HALF_Y: Final = 16
COLUMNS: Final = 17

# Columns of the table of scenes.
POSITION: Final = 0
FORWARD: Final = 3
UP: Final = 6
LIFT: Final = 9
LIGHT: Final = 10
KEY: Final = 13
FILL: Final = 16
FLOOR: Final = 19
FLOOR_SECOND: Final = 22
SPOT: Final = 25
SPOT_ON: Final = 26
EXTENT: Final = 27
SCENE_COLUMNS: Final = 28

KEY_STRENGTH: Final = 0.47
FILL_STRENGTH: Final = 0.52


@dataclass(frozen=True, slots=True)
class Pairs:
    """Which row of rays meets which part: sorted by part. `ranks` splits the pairs so that no row repeats within one."""

    row: Ints
    part: Ints
    ranks: tuple[Ints, ...]

    def ranges(self, kind_of_part: Ints) -> list[tuple[int, int, int]]:
        """(kind, first pair, end) of every kind that occurs."""
        kinds = kind_of_part[self.part]
        cuts = np.flatnonzero(np.diff(kinds)) + 1
        starts, stops = [0, *cuts.tolist()], [*cuts.tolist(), len(kinds)]
        return [(int(kinds[a]), a, b) for a, b in zip(starts, stops, strict=True) if b > a]


def make_pairs(row: Ints, part: Ints) -> Pairs:
    """Sort pairs by part and rank those that share a row."""
    order = np.argsort(part, kind="stable")
    row, part = row[order], part[order]
    if len(row) == 0:
        return Pairs(row, part, ())
    by_row = np.argsort(row, kind="stable")
    sorted_rows = row[by_row]
    fresh = np.concatenate([[True], sorted_rows[1:] != sorted_rows[:-1]])
    starts = np.flatnonzero(fresh)
    rank = np.arange(len(row)) - np.repeat(starts, np.diff([*starts.tolist(), len(row)]))
    return Pairs(row, part, tuple(np.sort(by_row[rank == step]) for step in range(int(rank.max()) + 1)))


@dataclass(frozen=True)
class Packed:
    """The tables of one batch of scenes, for pictures of one size."""

    width_px: int
    height_px: int
    scenes: Floats  # (B, SCENE_COLUMNS)
    parts: Floats  # (P, COLUMNS)
    kind: Ints  # (P,)
    scene_of: Ints  # (P,)
    owner: Ints  # (P,)
    surface: Ints  # (P,)
    material: Ints  # (P,)
    radius: Floats  # (P,) of the ball around the part
    dots: Floats  # (P, MAX_DOTS, 3)
    textures: tuple[NDArray[np.uint8] | None, ...]  # a part's printed text
    floor_kind: Ints  # (B,)
    camera_pairs: Pairs  # tiles x parts that camera rays may meet
    floor_pairs: Pairs  # tiles x parts that may shade the floor there

    @property
    def columns(self) -> int:
        """Tiles beside one another in a picture."""
        return self.width_px // TILE_PX

    @property
    def tiles(self) -> int:
        """Tiles in one picture."""
        return self.columns * (self.height_px // TILE_PX)


def light_direction(light: Light) -> tuple[float, float, float]:
    """Unit vector from the scene towards the key light."""
    if light.side == "above":
        flat, elevation = (-0.45, 0.9), 80.0
    else:
        flat = {"left": (-0.86, 0.5), "right": (0.86, 0.5), "front": (-0.22, 0.97), "behind": (-0.25, -0.97)}[
            light.side
        ]
        elevation = 56.0 if light.height == "high" else 35.0
    length = math.hypot(*flat)
    cosine = math.cos(math.radians(elevation))
    return flat[0] / length * cosine, math.sin(math.radians(elevation)), flat[1] / length * cosine


def _scene_row(scene: Scene, view: View) -> list[float]:
    light = light_direction(scene.light)
    tint = v.LIGHT_COLORS[scene.light.warmth]
    key = [KEY_STRENGTH / light[1] * channel for channel in tint]
    fill = [FILL_STRENGTH * (0.5 + 0.5 * channel) for channel in tint]
    colors = [v.linear_of(color) for color in scene.floor.hexes]
    spot = scene.light.spot
    return [
        *view.position,
        *view.forward,
        *view.up,
        view.lift * TAN_HALF_VIEW,
        *light,
        *key,
        *fill,
        *colors[0],
        *colors[-1],
        SPOT_X[spot] * scene.camera.extent / 1.8 if spot != "none" else 0.0,
        float(spot != "none"),
        scene.camera.extent,
    ]


def _part_row(part: Part) -> list[float]:
    turn = math.radians(part.turn_deg)
    return [
        *part.center,
        *part.dims,
        math.cos(turn),
        math.sin(turn),
        *v.linear_of(part.color),
        *v.linear_of(part.second),
        part.scale,
        part.dot_radius,
        part.half_box[1],
    ]


def _dot_table(parts: Sequence[Part]) -> Floats:
    table = np.full((len(parts), MAX_DOTS, 3), FAR_DOT, np.float32)
    for index, part in enumerate(parts):
        if part.dots:
            table[index, : len(part.dots)] = part.dots
    return table


def _texture(part: Part, scene: Scene, shorter_px: int) -> NDArray[np.uint8] | None:
    """Text of a sign, with about two texels to a sample, so that plain bilinear look-up neither blurs nor flickers."""
    lettering = scene.lettering
    if part.surface != "text" or lettering is None:
        return None
    extent = scene.camera.extent * v.DISTANCE_FACTOR[scene.camera.distance]
    cap_px = SIGN_CAP_HEIGHT[lettering.size] * shorter_px / (2 * extent)
    return board_texture(lettering.lines, lettering.font, round(2 * cap_px))


def _ball_radius(parts: Floats, kind: Ints) -> Floats:
    a, b, c = parts[:, DIMS], parts[:, DIMS + 1], parts[:, DIMS + 2]
    corner, box = np.hypot(a, b), np.sqrt(a * a + b * b + c * c)
    picks = [kind == SPHERE, kind == BOX, kind == CYLINDER, kind == CONE, kind == TORUS, kind == CAPSULE]
    radius: Floats = np.select(picks, [a, box, corner, corner, a + b, a + b]).astype(np.float32)
    return radius


def _tiles(bounds_px: Floats, scene_of: Ints, columns: int, rows: int) -> tuple[Ints, Ints]:
    """(row of rays, part) of all tiles that (left, top, right, bottom) rectangles in pixels touch."""
    low = np.floor(bounds_px[:, :2] / TILE_PX).astype(np.int64)
    high = np.floor(bounds_px[:, 2:] / TILE_PX).astype(np.int64) + 1
    limit = np.array([columns, rows])
    low, high = np.clip(low, 0, limit), np.clip(high, 0, limit)
    size = np.maximum(high - low, 0)
    counts = size[:, 0] * size[:, 1]
    part = np.repeat(np.arange(len(counts)), counts)
    local = np.arange(len(part)) - np.repeat(np.cumsum(counts) - counts, counts)
    wide = np.maximum(size[part, 0], 1)
    column, line = low[part, 0] + local % wide, low[part, 1] + local // wide
    return scene_of[part] * (columns * rows) + line * columns + column, part


def _project(points: NDArray[np.float64], scenes: NDArray[np.float64], width_px: int, height_px: int) -> Floats:
    """(left, top, right, bottom) in pixels around points (P, K, 3) seen by the cameras of scene rows (P, columns)."""
    rel = points - scenes[:, None, POSITION : POSITION + 3]
    depth = np.maximum((rel * scenes[:, None, FORWARD : FORWARD + 3]).sum(-1), 0.3)
    shorter = min(width_px, height_px)
    scale = shorter / (2 * TAN_HALF_VIEW)
    x = width_px / 2 + rel[..., 0] / depth * scale
    height = (rel * scenes[:, None, UP : UP + 3]).sum(-1) / depth + scenes[:, None, LIFT]
    y = height_px / 2 - height * scale
    bounds: Floats = np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], 1).astype(np.float32)
    return bounds


def _grown(bounds_px: Floats) -> Floats:
    margin = (bounds_px[:, 2:] - bounds_px[:, :2]) * (_BOUNDS - 1) / 2 + 1
    return np.concatenate([bounds_px[:, :2] - margin, bounds_px[:, 2:] + margin], 1)


def _padded(outlines: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Outlines of different lengths as one array, filled up with their first points."""
    longest = max(len(each) for each in outlines)
    full = np.empty((len(outlines), longest, 3))
    for row, each in zip(full, outlines, strict=True):
        row[: len(each)], row[len(each) :] = each, each[0]
    return full


def _floor_shade(corners: NDArray[np.float64], light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners (P, 4, 3) of the floor rectangles where parts, given by their corners (P, 8, 3), cast shade."""
    fall = corners[..., 1:2] / light[:, None, 1:2]
    ground = corners - fall * light[:, None]
    reach = CONTACT + PENUMBRA * fall.max(1)
    both = np.concatenate([corners, ground], 1)
    low, high = both.min(1) - reach, both.max(1) + reach
    zero = np.zeros(len(low))
    return np.stack([np.stack([x, zero, z], 1) for x in (low[:, 0], high[:, 0]) for z in (low[:, 2], high[:, 2])], 1)


def pack(scenes: Sequence[Scene], width_px: int, height_px: int) -> Packed:
    """Turn scenes into tables and pair lists for pictures of one size (multiples of 8 pixels)."""
    listed = [(part, index) for index, scene in enumerate(scenes) for part in parts_of(scene)]
    listed.sort(key=lambda each: each[0].kind)
    parts = [part for part, _ in listed]
    scene_of = np.array([index for _, index in listed], np.int64)
    scene_table = np.array([_scene_row(scene, view_of(scene.camera)) for scene in scenes], np.float64)
    part_table = np.array([_part_row(part) for part in parts], np.float64).reshape(-1, COLUMNS)
    kind = np.array([part.kind for part in parts], np.int64)
    columns, rows = width_px // TILE_PX, height_px // TILE_PX
    empty = make_pairs(np.zeros(0, np.int64), np.zeros(0, np.int64))
    camera_pairs = floor_pairs = empty
    if parts:
        rows_of_parts = scene_table[scene_of]
        seen = _grown(_project(_padded([part.outline() for part in parts]), rows_of_parts, width_px, height_px))
        camera_pairs = make_pairs(*_tiles(seen, scene_of, columns, rows))
        corners = np.array([part.corners() for part in parts])
        shade = _floor_shade(corners, rows_of_parts[:, LIGHT : LIGHT + 3])
        floor_pairs = make_pairs(*_tiles(_project(shade, rows_of_parts, width_px, height_px), scene_of, columns, rows))
    shorter = min(width_px, height_px)
    return Packed(
        width_px=width_px,
        height_px=height_px,
        scenes=scene_table.astype(np.float32),
        parts=part_table.astype(np.float32),
        kind=kind,
        scene_of=scene_of,
        owner=np.array([part.owner for part in parts], np.int64),
        surface=np.array([SURFACES.index(part.surface) for part in parts], np.int64),
        material=np.array([v.MATERIALS.index(part.material) for part in parts], np.int64),
        radius=_ball_radius(part_table.astype(np.float32), kind),
        dots=_dot_table(parts),
        textures=tuple(_texture(part, scenes[index], shorter) for part, index in listed),
        floor_kind=np.array([v.FLOOR_KINDS.index(scene.floor.kind) for scene in scenes], np.int64),
        camera_pairs=camera_pairs,
        floor_pairs=floor_pairs,
    )
