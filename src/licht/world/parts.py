"""What a scene is made of: every subject taken apart into solids with a place, dimensions and colours.

Plain Python, so that scenes can be composed and checked without drawing them.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from licht.world import vocabulary as v
from licht.world.lettering import board_size
from licht.world.scene import Character, Lettering, Scene, Subject, Thing

SPHERE: Final = 0
BOX: Final = 1
CYLINDER: Final = 2
CONE: Final = 3
TORUS: Final = 4
CAPSULE: Final = 5
KINDS: Final = (SPHERE, BOX, CYLINDER, CONE, TORUS, CAPSULE)

Surface = Literal["plain", "striped", "checkered", "dotted", "text"]
Point = tuple[float, float, float]

SIGN_OWNER: Final = 100
"""Owner index of the board of a sign; subjects count from 0."""

EYE_COLOR: Final = "#1b1b1e"
MAX_DOTS: Final = 40

# Half extents of a large thing, and the numbers that its shape is made from.
_SPHERE_RADIUS: Final = 0.6
_CUBE_HALF: Final = 0.5
_CYLINDER: Final = (0.46, 0.56)  # radius, half height
_CONE: Final = (0.58, 0.62)  # radius, half height
_TORUS: Final = (0.43, 0.18)  # ring radius, tube radius; it stands upright
_CAPSULE: Final = (0.34, 0.32)  # radius, half length of the straight part
_HEAD_RADIUS: Final = 0.27
_HAND_RADIUS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Part:
    """One solid.

    `dims` by kind: sphere (radius), box (three half extents), cylinder and cone (radius, half height), torus (ring radius, tube
    radius; its axis is local z), capsule (radius, half length of the straight part). The axis of the round ones is y.
    """

    kind: int
    owner: int
    center: Point
    dims: Point
    turn_deg: float
    color: str
    second: str
    surface: Surface
    material: v.Material
    scale: float = 1.0
    dots: tuple[Point, ...] = ()
    dot_radius: float = 0.0

    @property
    def half_box(self) -> Point:
        """Half extents of the box around the part in its own frame."""
        a, b, c = self.dims
        if self.kind == SPHERE:
            return a, a, a
        if self.kind == BOX:
            return a, b, c
        if self.kind == TORUS:
            return a + b, a + b, b
        if self.kind == CAPSULE:
            return a, a + b, a
        return a, b, a

    def corners(self, margin: float = 0.0) -> list[Point]:
        """The eight corners in the world of the box around the part, grown by `margin` on all sides."""
        half_x, half_y, half_z = (extent + margin for extent in self.half_box)
        cosine, sine = math.cos(math.radians(self.turn_deg)), math.sin(math.radians(self.turn_deg))
        x, y, z = self.center
        return [
            (x + cosine * a + sine * c, y + b, z - sine * a + cosine * c)
            for a in (-half_x, half_x)
            for b in (-half_y, half_y)
            for c in (-half_z, half_z)
        ]

    def outline(self) -> NDArray[np.float64]:
        """Points (K, 3) in the world whose convex hull is nearly the part's own."""
        points = _outline_array(self.kind, self.dims)
        if self.turn_deg == 0.0:
            moved: NDArray[np.float64] = points + np.array(self.center)
            return moved
        cosine, sine = math.cos(math.radians(self.turn_deg)), math.sin(math.radians(self.turn_deg))
        turned = np.array([[cosine, 0.0, -sine], [0.0, 1.0, 0.0], [sine, 0.0, cosine]])
        world: NDArray[np.float64] = points @ turned + np.array(self.center)
        return world


def _to_world(point: Point, center: Point, turn_deg: float) -> Point:
    cosine, sine = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    x, y, z = point
    return center[0] + cosine * x + sine * z, center[1] + y, center[2] - sine * x + cosine * z


def _ring(radius: float, y: float, count: int = 12, phase: float = 0.0) -> list[Point]:
    angles = (2 * math.pi * (step + phase) / count for step in range(count))
    return [(radius * math.cos(angle), y, radius * math.sin(angle)) for angle in angles]


_ROUND: Final = 1.02
"""Rings of twelve points lie this much outside the circles that they stand for."""


def _dome(radius: float, y: float, up: int) -> list[Point]:
    """Half a ball above (up = 1) or below (-1) the height y."""
    bands = ((0.0, 12), (0.34, 12), (0.64, 12), (0.87, 8), (1.0, 1))
    return [p for rise, n in bands for p in _ring(radius * math.sqrt(1 - rise * rise), y + up * radius * rise, n)]


def _outline(kind: int, dims: Point) -> tuple[Point, ...]:
    a, b, c = dims
    if kind == BOX:
        return tuple((x, y, z) for x in (-a, a) for y in (-b, b) for z in (-c, c))
    wide = a * _ROUND
    if kind == SPHERE:
        return (*_dome(wide, 0.0, 1), *_dome(wide, 0.0, -1))
    if kind == CYLINDER:
        return (*_ring(wide, -b), *_ring(wide, b))
    if kind == CONE:
        return (*_ring(wide, -b), (0.0, b, 0.0))
    if kind == CAPSULE:
        return (*_dome(wide, b, 1), *_dome(wide, -b, -1))
    turns = (0.0, 35.0, 65.0, 90.0, -35.0, -65.0, -90.0)
    tube = [(a + b * math.cos(math.radians(turn)), b * math.sin(math.radians(turn))) for turn in turns]
    return tuple((x, y, z) for radius, z in tube for x, _, y in _ring(radius * _ROUND, 0.0, 16))


@lru_cache(maxsize=256)
def _outline_array(kind: int, dims: Point) -> NDArray[np.float64]:
    return np.array(_outline(kind, dims))


# Dots -----------------------------------------------------------------------------------------------------------------


def _fibonacci(radius: float, count: int) -> list[Point]:
    golden = math.pi * (3 - math.sqrt(5))
    points = []
    for step in range(count):
        y = 1 - (2 * step + 1) / count
        ring = math.sqrt(1 - y * y)
        points.append((radius * ring * math.cos(golden * step), radius * y, radius * ring * math.sin(golden * step)))
    return points


def _cube_dots(half: float) -> list[Point]:
    spots = [(0.0, 0.0), *((a * half * 0.58, b * half * 0.58) for a in (-1, 1) for b in (-1, 1))]
    faces: list[Point] = []
    for a, b in spots:
        faces += [(a, b, half), (a, b, -half), (half, a, b), (-half, a, b), (a, half, b)]
    return faces


def _torus_dots(ring: float, tube: float) -> list[Point]:
    points = []
    for step in range(10):
        for angle_deg in (0.0, 90.0, 180.0, 270.0):
            around = 2 * math.pi * (step + (0.5 if angle_deg in {0.0, 180.0} else 0.0)) / 10
            radius = ring + tube * math.cos(math.radians(angle_deg))
            z = tube * math.sin(math.radians(angle_deg))
            points.append((radius * math.cos(around), radius * math.sin(around), z))
    return points


@lru_cache(maxsize=32)
def _dots(shape: v.Shape, scale: float) -> tuple[Point, ...]:
    """Middles of the dots on a dotted thing, in its own frame."""
    points: list[Point]
    if shape == "sphere":
        points = _fibonacci(_SPHERE_RADIUS, 30)
    elif shape == "cube":
        points = _cube_dots(_CUBE_HALF)
    elif shape == "cylinder":
        radius, half = _CYLINDER
        points = [p for row in range(4) for p in _ring(radius, half * (0.75 - 0.5 * row), 7, 0.5 * (row % 2))]
        points += [(0.0, half, 0.0), *_ring(0.62 * radius, half, 5)]
    elif shape == "cone":
        radius, half = _CONE
        rows = ((-0.78, 9), (-0.36, 7), (0.06, 5), (0.46, 3))
        points = [p for y, n in rows for p in _ring(radius * (1 - y) / 2, half * y, n, 0.5 * (n % 4) / 2)]
    elif shape == "torus":
        points = _torus_dots(*_TORUS)
    else:
        radius, half = _CAPSULE
        points = [p for row in range(3) for p in _ring(radius, half * (1 - row), 6, 0.5 * (row % 2))]
        points += [(0.0, radius + half, 0.0), *_ring(0.8 * radius, half + 0.6 * radius, 5, 0.25)]
        points += _ring(0.8 * radius, -half - 0.6 * radius, 5, 0.25)
    return tuple((scale * x, scale * y, scale * z) for x, y, z in points[:MAX_DOTS])


# Subjects -------------------------------------------------------------------------------------------------------------

_DIMS: Final[dict[v.Shape, tuple[int, Point]]] = {
    "sphere": (SPHERE, (_SPHERE_RADIUS, 0.0, 0.0)),
    "cube": (BOX, (_CUBE_HALF, _CUBE_HALF, _CUBE_HALF)),
    "cylinder": (CYLINDER, (*_CYLINDER, 0.0)),
    "cone": (CONE, (*_CONE, 0.0)),
    "torus": (TORUS, (*_TORUS, 0.0)),
    "capsule": (CAPSULE, (*_CAPSULE, 0.0)),
}


def height_of(subject: Subject) -> float:
    """Height in world units of what stands on the floor."""
    if isinstance(subject, Character):
        return max(part.center[1] + part.half_box[1] for part in _character_parts(subject, 0))
    part = _thing_part(subject, 0, 0.0)
    return 2 * part.half_box[1]


def footprint_of(subject: Subject) -> float:
    """Radius of the upright cylinder in which the subject stands, in world units."""
    if isinstance(subject, Character):
        return 0.62
    kind, dims = _DIMS[subject.shape]
    if kind == BOX:
        return subject.scale * dims[0] * math.sqrt(2)
    if kind == TORUS:
        return subject.scale * math.hypot(dims[0] + dims[1], dims[1])
    return subject.scale * dims[0]


def _thing_part(thing: Thing, owner: int, base: float) -> Part:
    kind, dims = _DIMS[thing.shape]
    scale = thing.scale
    surface: Surface = thing.pattern
    part = Part(
        kind=kind,
        owner=owner,
        center=(thing.x, 0.0, thing.z),
        dims=(dims[0] * scale, dims[1] * scale, dims[2] * scale),
        turn_deg=thing.turn_deg,
        color=v.hex_of(thing.color),
        second=v.hex_of(thing.second or thing.color),
        surface=surface,
        material=thing.material,
        scale=scale,
        dots=_dots(thing.shape, scale) if thing.pattern == "dotted" else (),
        dot_radius=(0.075 if thing.shape == "torus" else 0.125) * scale,
    )
    return replace(part, center=(thing.x, base + part.half_box[1], thing.z))


_FACING_DEG: Final[dict[v.Facing, float]] = {"camera": 0.0, "left": -52.0, "right": 52.0}


def _eyes() -> tuple[Point, ...]:
    points = []
    for side in (-1, 1):
        yaw, pitch = math.radians(24.0 * side), math.radians(10.0)
        points.append(
            (
                _HEAD_RADIUS * math.cos(pitch) * math.sin(yaw),
                _HEAD_RADIUS * math.sin(pitch),
                _HEAD_RADIUS * math.cos(pitch) * math.cos(yaw),
            )
        )
    return tuple(points)


def _character_parts(who: Character, owner: int) -> list[Part]:
    def part(kind: int, at: Point, dims: Point, color: str) -> Part:
        place, base = (who.x + at[0], at[1], who.z + at[2]), v.hex_of(color)
        return Part(kind, owner, place, dims, 0.0, base, base, "plain", "matte")

    if who.body == "round":
        top, parts = 0.80, [part(SPHERE, (0.0, 0.42, 0.0), (0.42, 0.0, 0.0), who.body_color)]
    elif who.body == "square":
        top, parts = 0.72, [part(BOX, (0.0, 0.36, 0.0), (0.36, 0.36, 0.28), who.body_color)]
    else:
        top, parts = 0.80, [part(CONE, (0.0, 0.5, 0.0), (0.46, 0.5, 0.0), who.body_color)]
    head_y = top + 0.21
    head = part(SPHERE, (0.0, head_y, 0.0), (_HEAD_RADIUS, 0.0, 0.0), who.head_color)
    turn = _FACING_DEG[who.facing]
    parts.append(replace(head, turn_deg=turn, second=EYE_COLOR, surface="dotted", dots=_eyes(), dot_radius=0.062))
    hand_y, hand_x = (0.92, 0.44) if who.arms == "up" else (0.44, 0.49)
    parts += [
        part(SPHERE, (side * hand_x, hand_y, 0.1), (_HAND_RADIUS, 0.0, 0.0), who.head_color) for side in (-1.0, 1.0)
    ]
    hat_color = who.hat_color
    if who.hat == "pointed" and hat_color is not None:
        parts.append(part(CONE, (0.0, head_y + 0.38, 0.0), (0.25, 0.23, 0.0), hat_color))
    elif who.hat == "top" and hat_color is not None:
        parts.append(part(CYLINDER, (0.0, head_y + 0.19, 0.0), (0.31, 0.03, 0.0), hat_color))
        parts.append(part(CYLINDER, (0.0, head_y + 0.36, 0.0), (0.19, 0.16, 0.0), hat_color))
    return parts


def base_of(scene: Scene, index: int) -> float:
    """Height above the floor on which a subject stands."""
    subject = scene.subjects[index]
    if isinstance(subject, Thing) and subject.on is not None:
        return height_of(scene.subjects[subject.on])
    return 0.0


def sign_part(lettering: Lettering) -> Part:
    """The standing board on which the lettering of a sign is printed; text is on its front (local +z) face."""
    width, height = board_size(lettering)
    return Part(
        BOX,
        SIGN_OWNER,
        (lettering.x, height / 2, lettering.z),
        (width / 2, height / 2, 0.06),
        0.0,
        v.hex_of(lettering.board or "white"),
        v.hex_of(lettering.color),
        "text",
        "matte",
    )


def parts_of(scene: Scene) -> list[Part]:
    """All solids of the scene, in the order of its subjects, the sign last."""
    parts: list[Part] = []
    for index, subject in enumerate(scene.subjects):
        if isinstance(subject, Character):
            parts += _character_parts(subject, index)
        else:
            parts.append(_thing_part(subject, index, base_of(scene, index)))
    if scene.lettering is not None and scene.lettering.place == "sign":
        parts.append(sign_part(scene.lettering))
    return parts
