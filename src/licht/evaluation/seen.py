"""What there is to see in a picture of the rendered world, as categories: the words of judge and suites alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from licht.world import vocabulary as v
from licht.world.labels import labels
from licht.world.scene import Character, Floor, Scene, Subject, Thing

COLOR_NAMES: Final = tuple(v.COLORS)
BODY_KINDS: Final = tuple(f"{body} character" for body in v.BODIES)
FLOOR_NAMES: Final = (*v.FLOOR_COLORS, *(f"{a} and {b}" for a, b in v.CHECKERED_FLOORS), "wooden")
OBJECT_CATEGORIES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "kind": (*v.SHAPES, *BODY_KINDS),
        "color": COLOR_NAMES,
        "size": v.SIZES,
        "material": v.MATERIALS,
        "pattern": v.PATTERNS,
        "second": COLOR_NAMES,
        "head": COLOR_NAMES,
        "hat": v.HATS,
        "hat_color": COLOR_NAMES,
        "facing": v.FACINGS,
        "arms": v.ARMS,
        "carried": ("no", "yes"),
    }
)
"""Of each object; a character's `color` is its body's. `carried`: whether it stands on another."""
PICTURE_CATEGORIES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "floor": FLOOR_NAMES,
        "light_side": v.LIGHT_SIDES,
        "light_height": v.LIGHT_HEIGHTS,
        "warmth": v.WARMTHS,
        "spot": v.SPOTS,
        "camera_height": v.CAMERA_HEIGHTS,
        "text": ("none", *v.TEXT_PLACES),
    }
)
"""Of the picture as a whole."""


@dataclass(frozen=True, slots=True)
class SeenObject:
    """One object: its categories, its main colour as `#rrggbb`, and where it is.

    `center` is (x, y) and `box` (left, top, right, bottom), shares of width and height, y downwards. `score` is how
    sure whoever looked is that it is there.
    """

    attributes: Mapping[str, str]
    hex: str
    center: tuple[float, float]
    box: tuple[float, float, float, float]
    score: float = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything in one picture."""

    objects: tuple[SeenObject, ...]
    picture: Mapping[str, str]


def floor_name(floor: Floor) -> str:
    """One of `FLOOR_NAMES`."""
    if floor.kind == "wooden":
        return "wooden"
    return floor.color if floor.second is None else f"{floor.color} and {floor.second}"


def subject_attributes(subject: Subject) -> dict[str, str]:
    """The categories that a subject has; what it cannot have is left out."""
    if isinstance(subject, Character):
        found = {
            "kind": f"{subject.body} character",
            "color": _name(subject.body_color),
            "head": _name(subject.head_color),
            "hat": subject.hat,
            "facing": subject.facing,
            "arms": subject.arms,
            "carried": "no",
        }
        return found if subject.hat_color is None else {**found, "hat_color": _name(subject.hat_color)}
    found = {
        "kind": subject.shape,
        "color": _name(subject.color),
        "size": subject.size,
        "material": subject.material,
        "pattern": subject.pattern,
        "carried": "no" if subject.on is None else "yes",
    }
    return found if subject.second is None else {**found, "second": _name(subject.second)}


def picture_attributes(scene: Scene) -> dict[str, str]:
    """The categories of the whole picture."""
    return {
        "floor": floor_name(scene.floor),
        "light_side": scene.light.side,
        "light_height": scene.light.height,
        "warmth": scene.light.warmth,
        "spot": scene.light.spot,
        "camera_height": scene.camera.height,
        "text": "none" if scene.lettering is None else scene.lettering.place,
    }


def truth(scene: Scene, width_px: int = 128, height_px: int = 128) -> Seen:
    """What a perfect judge sees in a picture of the scene, in the order of its subjects."""
    objects = tuple(
        SeenObject(subject_attributes(scene.subjects[label.index]), label.hex, label.center, label.box)
        for label in labels(scene, width_px, height_px)
    )
    return Seen(objects, picture_attributes(scene))


def subject_hex(subject: Subject) -> str:
    """The main colour as `#rrggbb`."""
    return v.hex_of(subject.color if isinstance(subject, Thing) else subject.body_color)


def wrong_attributes(seen: SeenObject, asked: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """Which of the `names` that are asked for are otherwise in what is seen."""
    return [name for name in names if name in asked and seen.attributes.get(name) != asked[name]]


def _name(color: str) -> str:
    return v.nearest_name(color) if v.is_hex(color) else color
