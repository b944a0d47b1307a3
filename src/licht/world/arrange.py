"""How the subjects of a scene stand to one another: what a caption says about places, read off the geometry."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from licht.world.layout import Side, half_extents, silhouettes
from licht.world.scene import Scene, Thing

ArrangementKind = Literal["empty", "single", "row", "depth", "rows", "loose"]

_ROW_DEPTH: Final = 0.75  # z may differ that much within a row
_ROW_STEP: Final = 0.45  # least distance in x of neighbours that are told apart as left and right
_DEPTH_STEP: Final = 0.8  # least distance in z of things that are told apart as in front and behind
_SIDE: Final = 0.34  # share of the half width from which on a place is left or right


@dataclass(frozen=True)
class Arrangement:
    """Units (a subject, or a support and what stands on it, as indices) in the order in which they are told.

    row: from left to right; depth: the front one first; rows: the back row, then the front row, both from left to
    right, `behind` units in the back row.
    """

    kind: ArrangementKind
    units: tuple[tuple[int, ...], ...]
    behind: int = 0


def _units(scene: Scene) -> list[tuple[int, ...]]:
    on_top: dict[int, list[int]] = {}
    for index, subject in enumerate(scene.subjects):
        if isinstance(subject, Thing) and subject.on is not None:
            on_top.setdefault(subject.on, []).append(index)
    carried = {index for indices in on_top.values() for index in indices}
    return [(index, *on_top.get(index, [])) for index in range(len(scene.subjects)) if index not in carried]


def _in_steps(xs: list[float]) -> bool:
    return all(b - a >= _ROW_STEP for a, b in pairwise(xs))


def arrange(scene: Scene) -> Arrangement:
    """Read the arrangement off the places of the subjects."""
    units = _units(scene)
    place = {unit: (scene.subjects[unit[0]].x, scene.subjects[unit[0]].z) for unit in units}
    if not units:
        return Arrangement("empty", ())
    if len(units) == 1:
        return Arrangement("single", tuple(units))
    by_x = sorted(units, key=lambda unit: place[unit][0])
    by_z = sorted(units, key=lambda unit: place[unit][1])
    zs = [place[unit][1] for unit in by_z]
    if zs[-1] - zs[0] <= _ROW_DEPTH and _in_steps([place[unit][0] for unit in by_x]):
        return Arrangement("row", tuple(by_x))
    if len(units) == 2:
        wide = abs(place[units[0]][0] - place[units[1]][0])
        if zs[1] - zs[0] >= _DEPTH_STEP and zs[1] - zs[0] >= 1.1 * wide:
            return Arrangement("depth", (by_z[1], by_z[0]))
        return Arrangement("row" if wide >= 2 * _ROW_STEP else "loose", tuple(by_x))
    cut = max(range(1, len(units)), key=lambda step: zs[step] - zs[step - 1])
    back, front = (sorted(row, key=lambda unit: place[unit][0]) for row in (by_z[:cut], by_z[cut:]))
    if zs[cut] - zs[cut - 1] >= _DEPTH_STEP and all(_in_steps([place[u][0] for u in row]) for row in (back, front)):
        return Arrangement("rows", (*back, *front), len(back))
    return Arrangement("loose", tuple(by_x))


def sides(scene: Scene) -> dict[int, Side]:
    """On which side of the picture each owner (subjects by index, the sign last) is, by the middle of its outline."""
    wide, _ = half_extents(scene.aspect)
    found: dict[int, Side] = {}
    for each in silhouettes(scene):
        middle = 0.5 * (each.bounds[0] + each.bounds[2]) / wide
        found[each.owner] = "left" if middle < -_SIDE else "right" if middle > _SIDE else "middle"
    return found
