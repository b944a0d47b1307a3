"""What there is to see in a picture of the rendered world, as categories: the words of judge and suites alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from licht.world import vocabulary as v
from licht.world.labels import labels
from licht.world.scene import Character, Scene, Subject, Thing

COLOR_NAMES: Final = tuple(v.COLORS)
BODY_KINDS: Final = tuple(f"{body} character" for body in v.BODIES)
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
        "floor": v.FLOOR_NAMES,
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
        "floor": scene.floor.name,
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


def colors_sorted(one: SeenObject, subject: Subject) -> SeenObject:
    """The two colours of stripes and checks in the vocabulary's order: a judge cannot learn one that is not seen."""
    if not isinstance(subject, Thing) or subject.second is None or subject.pattern not in v.EVEN_PATTERNS:
        return one
    first, second = sorted((subject.color, subject.second), key=lambda color: COLOR_NAMES.index(_name(color)))
    attributes = {**one.attributes, "color": _name(first), "second": _name(second)}
    return replace(one, attributes=attributes, hex=v.hex_of(first))


def subject_hex(subject: Subject) -> str:
    """The main colour as `#rrggbb`."""
    return v.hex_of(subject.color if isinstance(subject, Thing) else subject.body_color)


def wrong_attributes(seen: SeenObject, asked: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """Which of the `names` that are asked for are otherwise in what is seen."""
    found = in_order(seen.attributes, asked)
    return [name for name in names if name in asked and found.get(name) != asked[name]]


def in_order(seen: Mapping[str, str], asked: Mapping[str, str]) -> Mapping[str, str]:
    """What is seen, with the two colours of stripes and checks as asked: which of them is the first cannot be seen."""
    if asked.get("pattern") not in v.EVEN_PATTERNS or "second" not in seen:
        return seen
    turned = {**seen, "color": seen["second"], "second": seen["color"]}
    agree, agree_turned = (sum(each[n] == asked.get(n) for n in ("color", "second")) for each in (seen, turned))
    return turned if agree_turned > agree else seen


def _name(color: str) -> str:
    return v.nearest_name(color) if v.is_hex(color) else color
