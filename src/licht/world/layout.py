"""Composing: do things keep apart, are they in the picture, do they hide one another, where are they in it?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from licht.world import vocabulary as v
from licht.world.camera import view_of
from licht.world.lettering import board_size, overlay_box
from licht.world.parts import SIGN_OWNER, Part, footprint_of, parts_of
from licht.world.scene import Lettering, Scene, Thing

GAP: Final = 0.07
"""Least distance of two footprints on the floor, in world units."""
VISIBLE: Final = 0.5
"""Least share of a subject that nothing may hide."""
SIGN_VISIBLE: Final = 0.985
_EDGE: Final = 0.05
_OVERLAY_GAP: Final = 0.05
_GRID: Final = 40

Side = Literal["left", "middle", "right"]


@dataclass(frozen=True)
class Silhouette:
    """One subject (or the sign) in the picture: outlines of its parts, bounds, distance from the camera."""

    owner: int
    outlines: tuple[NDArray[np.float64], ...]
    bounds: tuple[float, float, float, float]
    depth: float
    base: float


def half_extents(aspect: float) -> tuple[float, float]:
    """Half width and half height of a picture in halves of its shorter side."""
    return max(1.0, aspect), max(1.0, 1.0 / aspect)


def _hull(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convex hull, counter-clockwise (Andrew's monotone chain)."""
    ordered = sorted({(float(x), float(y)) for x, y in points})

    def chain(sequence: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        found: list[tuple[float, float]] = []
        for point in sequence:
            while len(found) > 1 and _turn(found[-2], found[-1], point) <= 0:
                found.pop()
            found.append(point)
        return found[:-1]

    return np.array(chain(ordered) + chain(ordered[::-1]))


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def silhouettes(scene: Scene) -> list[Silhouette]:
    """Outlines of all subjects in the picture, the sign's last."""
    view = view_of(scene.camera)
    groups: dict[int, list[Part]] = {}
    for part in parts_of(scene):
        groups.setdefault(part.owner, []).append(part)
    found = []
    for owner, parts in groups.items():
        outlines = tuple(view.project_all(part.outline()) for part in parts)
        every = np.concatenate(outlines) if len(outlines) > 1 else outlines[0]
        (left, bottom), (right, top) = every.min(0).tolist(), every.max(0).tolist()
        first = parts[0]
        depth = view.depth((first.center[0], 0.0, first.center[2]))
        base = min(part.center[1] - part.half_box[1] for part in parts)
        found.append(Silhouette(owner, outlines, (left, bottom, right, top), depth, base))
    return found


def _covers(hull: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    start, stop = hull, np.roll(hull, -1, 0)
    edge = stop - start
    sides = edge[:, 0, None] * (y - start[:, 1, None]) - edge[:, 1, None] * (x - start[:, 0, None])
    inside: NDArray[np.bool_] = np.all(sides >= 0, axis=0)
    return inside


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def visible_shares(scene: Scene) -> dict[int, float]:
    """About which share of each subject's outline (by owner index) nothing nearer hides."""
    every = silhouettes(scene)
    shares = {}
    for one in every:
        nearer = [
            other
            for other in every
            if other is not one
            and (other.depth, -other.base) < (one.depth, -one.base)
            and _overlap(one.bounds, other.bounds)
        ]
        if not nearer:
            shares[one.owner] = 1.0
            continue
        left, bottom, right, top = one.bounds
        x, y = (a.ravel() for a in np.meshgrid(np.linspace(left, right, _GRID), np.linspace(bottom, top, _GRID)))
        own = np.any([_covers(_hull(points), x, y) for points in one.outlines], 0)
        hidden = np.any([_covers(_hull(points), x, y) for other in nearer for points in other.outlines], 0)
        shares[one.owner] = float((own & ~hidden).sum() / max(1, own.sum()))
    return shares


def keep_apart(scene: Scene) -> bool:
    """Whether no two subjects (and no subject and sign) touch on the floor; what stands on something fits on it."""
    for index, one in enumerate(scene.subjects):
        if isinstance(one, Thing) and one.on is not None:
            below = scene.subjects[one.on]
            inner = math.hypot(one.x - below.x, one.z - below.z) + _base_radius(one)
            if not isinstance(below, Thing) or inner > _top_radius(below) or _shares_support(scene, index):
                return False
            continue
        if scene.lettering is not None and not _clear_of_sign(scene.lettering, one.x, one.z, footprint_of(one)):
            return False
        for other in scene.subjects[index + 1 :]:
            if isinstance(other, Thing) and other.on is not None:
                continue
            apart = math.hypot(one.x - other.x, one.z - other.z)
            if apart < footprint_of(one) + footprint_of(other) + GAP:
                return False
    return True


def _shares_support(scene: Scene, index: int) -> bool:
    own = scene.subjects[index]
    return isinstance(own, Thing) and sum(isinstance(each, Thing) and each.on == own.on for each in scene.subjects) > 1


def _base_radius(thing: Thing) -> float:
    """Radius of the circle that must find room on a support: round things roll, so half their width will do."""
    width = footprint_of(thing)
    return 0.6 * width if thing.shape in {"sphere", "torus", "capsule"} else width


def _top_radius(thing: Thing) -> float:
    return footprint_of(thing) / math.sqrt(2) if thing.shape == "cube" else footprint_of(thing)


def _clear_of_sign(lettering: Lettering, x: float, z: float, radius: float) -> bool:
    if lettering.place != "sign":
        return True
    half = board_size(lettering)[0] / 2
    away_x = max(0.0, abs(x - lettering.x) - half)
    return math.hypot(away_x, z - lettering.z) >= radius + GAP + 0.06


def _free_rows(scene: Scene) -> tuple[float, float]:
    """(lowest, highest) v that subjects may reach beside lettering over the scene."""
    _, tall = half_extents(scene.aspect)
    low, high = -tall * (1 - _EDGE), tall * (1 - _EDGE)
    if scene.lettering is not None and scene.lettering.place != "sign":
        _, top, _, bottom = overlay_box(scene.lettering, scene.aspect)
        if scene.lettering.place == "top":
            high = bottom - _OVERLAY_GAP
        else:
            low = top + _OVERLAY_GAP
    return low, high


def text_fits(lettering: Lettering, aspect: float) -> bool:
    """Whether text over the scene is narrow enough for the picture, and a board for its camera."""
    if lettering.place == "sign":
        return True
    left, _, right, _ = overlay_box(lettering, aspect)
    return right - left <= 1.9 * half_extents(aspect)[0]


def framed(scene: Scene, most: float = 1.35) -> Scene | None:
    """The scene with its camera lifted and drawn back (by at most `most`) until all of it is in the picture."""
    wide, _ = half_extents(scene.aspect)
    low, high = _free_rows(scene)
    base, factor = scene.camera.extent, 1.0
    while factor <= most:
        camera = replace(scene.camera, extent=round(base * factor, 3), lift=0.0)
        every = silhouettes(replace(scene, camera=camera))
        if not every:
            return replace(scene, camera=camera)
        bottom, top = min(each.bounds[1] for each in every), max(each.bounds[3] for each in every)
        side = max(max(-each.bounds[0], each.bounds[2]) for each in every)
        if top - bottom <= high - low and side <= wide * (1 - _EDGE):
            lift = 0.0
            if scene.lettering is not None and scene.lettering.place != "sign":
                lift = 0.5 * (low + high) - 0.5 * (bottom + top)
            lift = min(max(lift, low - bottom), high - top)
            return replace(scene, camera=replace(camera, lift=round(lift, 3)))
        factor *= 1.06
    return None


def in_picture(scene: Scene) -> bool:
    """Whether every subject and the sign lie inside the picture, clear of its edges and of lettering over it."""
    wide, _ = half_extents(scene.aspect)
    low, high = _free_rows(scene)
    slack = 2e-3
    return all(
        -wide <= each.bounds[0]
        and each.bounds[2] <= wide
        and low - slack <= each.bounds[1]
        and each.bounds[3] <= high + slack
        for each in silhouettes(scene)
    )


def is_clear(scene: Scene) -> bool:
    """Whether everything is in the picture, apart from the rest, and visible: what every sampled scene fulfils."""
    if not keep_apart(scene) or not in_picture(scene):
        return False
    shares = visible_shares(scene)
    return all(share >= (SIGN_VISIBLE if owner == SIGN_OWNER else VISIBLE) for owner, share in shares.items())


def floor_contrast(scene_floor: Sequence[str], color: str) -> float:
    """Least distance in Oklab of a `#rrggbb` colour from the floor's colours."""
    return min(v.color_distance(color, each) for each in scene_floor)


def lightness_contrast(ground: Sequence[str], color: str) -> float:
    """Least difference in Oklab lightness of a `#rrggbb` colour from several others: what makes print readable."""
    return min(abs(v.oklab_of(each)[0] - v.oklab_of(color)[0]) for each in ground)
