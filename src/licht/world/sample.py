"""Random scenes: the same seed, index, kind and split always give the same scene, in any batch, order or process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import Final, Literal, get_args

from licht.core.errors import InvalidRequest
from licht.world import draw
from licht.world import vocabulary as v
from licht.world.draw import Dice, Pairs
from licht.world.layout import framed, is_clear
from licht.world.parts import footprint_of
from licht.world.scene import Camera, Floor, Light, Scene, Subject, Thing
from licht.world.words import Split

Kind = Literal[
    "one",
    "two",
    "relation",
    "row",
    "layout",
    "many",
    "character",
    "word",
    "two_lines",
    "hex",
    "pattern",
    "studio",
    "negation",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

MIXTURE: Final[Mapping[Kind, float]] = MappingProxyType(
    {
        "one": 0.12,
        "two": 0.14,
        "relation": 0.10,
        "row": 0.08,
        "layout": 0.10,
        "many": 0.05,
        "character": 0.08,
        "word": 0.11,
        "two_lines": 0.06,
        "hex": 0.05,
        "pattern": 0.03,
        "studio": 0.04,
        "negation": 0.04,
    }
)
"""Shares of the kinds in a mixed stream."""

EXTENTS: Final = (1.2, 1.2, 1.55, 2.0, 2.2, 2.4, 2.45, 2.7, 2.75, 3.05, 3.1)
"""Half of what the shorter side shows, by the number of subjects."""
_ATTEMPTS: Final = 400


def sample_kind(seed: int, index: int) -> Kind:
    """A kind by the shares of `MIXTURE`."""
    dice = Dice.of("train", "any", "kind", seed, index)
    return dice.weighted(tuple(MIXTURE.items()))


def sample_scene(
    kind: Kind, seed: int, index: int, *, split: Split = "train", pairs: Pairs = "seen", aspect: float = 1.0
) -> Scene:
    """A random scene of a kind, composed for a width / height of 0.5 to 2.

    Everything in it is apart from the rest, in the picture and visible (`layout.is_clear`). Raises `InvalidRequest`
    for an unknown kind.
    """
    if kind not in _COMPOSERS:
        raise InvalidRequest(f"kind is {kind!r}; expected one of {', '.join(KINDS)}", field="kind")
    dice = Dice.of(split, pairs, "scene", kind, seed, index, round(aspect, 4))
    for _ in range(_ATTEMPTS):
        scene = _COMPOSERS[kind](dice, aspect)
        clear = finished(scene)
        if clear is not None:
            return clear
    raise AssertionError(f"no clear scene of kind {kind} for seed {seed}, index {index} in {_ATTEMPTS} attempts")


def finished(scene: Scene, most: float = 1.35) -> Scene | None:
    """The scene with its camera fitted, or None where it cannot be made clear."""
    fitted = framed(scene, most)
    return fitted if fitted is not None and is_clear(fitted) else None


# Places ---------------------------------------------------------------------------------------------------------------


def at(subject: Subject, x: float, z: float) -> Subject:
    """The subject at another place, in thousandths of a unit."""
    return replace(subject, x=round(x, 3), z=round(z, 3))


def side_by_side(dice: Dice, subjects: Sequence[Subject], stretch: float = 1.0) -> tuple[Subject, ...]:
    """Subjects from left to right, a little irregular."""
    gap = dice.rng.uniform(0.25, 0.5) * stretch
    widths = [footprint_of(subject) for subject in subjects]
    places = [0.0]
    for left, right in pairwise(widths):
        places.append(places[-1] + left + right + gap)
    middle = (places[0] - widths[0] + places[-1] + widths[-1]) / 2
    return tuple(
        at(subject, place - middle, dice.around(0.0, 0.14)) for subject, place in zip(subjects, places, strict=True)
    )


def one_behind_another(dice: Dice, front: Subject, back: Subject) -> tuple[Subject, Subject]:
    """Two subjects, the first nearer to the camera."""
    depth = footprint_of(front) + footprint_of(back) + dice.rng.uniform(0.45, 1.0)
    shift = dice.rng.uniform(0.15, 0.42) * dice.pick((-1, 1)) * depth / 1.8
    return at(front, -shift, depth / 2), at(back, shift, -depth / 2)


def stacked(dice: Dice, upper: Thing, lower: Thing, index: int) -> tuple[Thing, Thing]:
    """(lower, upper): the upper thing on top of the lower one, whose index in the scene is `index`."""
    placed = replace(upper, x=dice.around(lower.x, 0.04), z=dice.around(lower.z, 0.04), on=index)
    return lower, placed


def two_rows(dice: Dice, subjects: Sequence[Subject]) -> tuple[Subject, ...]:
    """Subjects in a back row and a front row (the front one not the shorter), each from left to right."""
    behind = len(subjects) // 2
    rows = (subjects[:behind], subjects[behind:])
    depth = dice.rng.uniform(0.85, 1.0)
    placed: list[Subject] = []
    for row, z in zip(rows, (-depth, depth), strict=True):
        pitch = 1.3 if len(row) < 5 else 1.22
        for step, subject in enumerate(row):
            x = (step - (len(row) - 1) / 2) * pitch
            placed.append(at(subject, dice.around(x, 0.05), dice.around(z, 0.06)))
    return tuple(placed)


def things(dice: Dice, floor: Floor, count: int, *, hex_share: float = 0.0, plain: float = 0.85) -> list[Thing]:
    """Different things: no two agree in colour, shape and size. With unseen pairs, the first one is held out."""
    found: list[Thing] = []
    while len(found) < count:
        unseen = dice.pairs == "unseen" and not found
        fresh = draw.thing(dice, floor, hex_share=hex_share, plain=plain, unseen=unseen)
        if all((fresh.color, fresh.shape) != (other.color, other.shape) for other in found):
            found.append(fresh)
    dice.rng.shuffle(found)
    return found


def _scene(
    dice: Dice,
    floor: Floor,
    subjects: Sequence[Subject],
    aspect: float,
    camera: Camera | None = None,
    light: Light | None = None,
) -> Scene:
    seen = draw.camera(dice, EXTENTS[len(subjects)]) if camera is None else camera
    lit = draw.light(dice) if light is None else light
    return Scene(floor, tuple(subjects), lit, seen, None, aspect)


# Kinds ----------------------------------------------------------------------------------------------------------------


def _one(dice: Dice, aspect: float) -> Scene:
    floor = draw.floor(dice)
    subject = at(things(dice, floor, 1)[0], dice.around(0.0, 0.22), dice.around(0.0, 0.2))
    return _scene(dice, floor, (subject,), aspect)


def _two(dice: Dice, aspect: float) -> Scene:
    floor = draw.floor(dice)
    return _scene(dice, floor, side_by_side(dice, things(dice, floor, 2)), aspect)


def _relation(dice: Dice, aspect: float) -> Scene:
    floor = draw.floor(dice)
    pair = things(dice, floor, 2)
    how = dice.weighted((("side", 0.3), ("depth", 0.4), ("stack", 0.3)))
    if how == "side":
        return _scene(dice, floor, side_by_side(dice, pair), aspect)
    if how == "depth":
        height: v.CameraHeight = "high" if dice.chance(0.35) else "eye level"
        camera = replace(draw.camera(dice, 1.75), height=height)
        return _scene(dice, floor, one_behind_another(dice, pair[0], pair[1]), aspect, camera=camera)
    lower = next((each for each in pair if each.shape in {"cube", "cylinder"}), None)
    if lower is None:
        return _relation(dice, aspect)
    upper = pair[1] if lower is pair[0] else pair[0]
    lower = replace(lower, x=dice.around(0.0, 0.2), z=dice.around(0.0, 0.15), size="large")
    return _scene(dice, floor, stacked(dice, upper, lower, 0), aspect)


def _row(dice: Dice, aspect: float) -> Scene:
    floor = draw.floor(dice)
    three = things(dice, floor, 3)
    if dice.chance(0.12) and dice.pairs != "unseen":
        three = [three[0]] * 3
    return _scene(dice, floor, side_by_side(dice, three, 0.6), aspect)


def _layout(dice: Dice, aspect: float) -> Scene:
    floor = draw.floor(dice)
    count = dice.weighted(((1, 0.2), (2, 0.4), (3, 0.4)))
    some: list[Subject] = list(things(dice, floor, count))
    if dice.chance(0.2):
        some[0] = draw.character(dice, floor) if dice.pairs != "unseen" else some[0]
    columns = dice.rng.sample((-1, 0, 1), count)
    columns.sort()
    width = max(1.25, 0.8 * aspect)
    placed = [
        at(each, column * width + dice.around(0.0, 0.08), 0.0) for each, column in zip(some, columns, strict=True)
    ]
    camera = replace(draw.camera(dice, EXTENTS[3]), distance="medium")
    spot: v.Spot = dice.pick(v.SPOTS[1:]) if dice.chance(0.35) else "none"
    return _scene(dice, floor, placed, aspect, camera=camera, light=replace(draw.light(dice, 0.0), spot=spot))


def _many(dice: Dice, aspect: float) -> Scene:
    floor = draw.floor(dice)
    count = dice.weighted(((4, 0.35), (5, 0.2), (6, 0.2), (7, 0.07), (8, 0.08), (9, 0.05), (10, 0.05)))
    some: list[Subject] = [replace(each, size="small") if count > 6 else each for each in things(dice, floor, count)]
    camera = Camera("high", "medium", EXTENTS[count])
    return _scene(dice, floor, two_rows(dice, some), aspect, camera=camera)


def _character(dice: Dice, aspect: float) -> Scene:
    floor = draw.floor(dice)
    how = dice.weighted((("one", 0.45), ("two", 0.25), ("thing", 0.3)))
    subjects: list[Subject] = [draw.character(dice, floor)]
    if how == "two":
        subjects.append(draw.character(dice, floor))
    elif how == "thing":
        subjects.append(things(dice, floor, 1)[0])
        dice.rng.shuffle(subjects)
    camera = draw.camera(dice, 1.5 if len(subjects) == 1 else 1.85)
    return _scene(dice, floor, side_by_side(dice, subjects), aspect, camera=camera)


def _text(dice: Dice, aspect: float, lines: int) -> Scene:
    floor = draw.floor(dice, 0.9)
    if floor.kind == "checkered":
        floor = Floor("wooden", "wood")
    text = draw.lettering(dice, floor, aspect, lines)
    count = dice.weighted(((0, 0.2), (1, 0.55), (2, 0.25)))
    subjects: Sequence[Subject] = things(dice, floor, count)
    if text.place == "sign":
        text = replace(text, x=dice.around(0.0, 0.5), z=-0.7)
        width = dice.rng.uniform(0.5, 1.9)
        subjects = [
            at(each, (step - (count - 1) / 2) * width * 2 + dice.around(0.0, 0.9), dice.around(0.75, 0.5))
            for step, each in enumerate(subjects)
        ]
    elif subjects:
        subjects = side_by_side(dice, subjects)
    camera = replace(draw.camera(dice, (1.5, 1.5, 1.75)[count]), distance="medium")
    if text.place == "sign" and camera.height == "high":
        camera = replace(camera, height="eye level")
    return replace(_scene(dice, floor, subjects, aspect, camera=camera), lettering=text)


def _word(dice: Dice, aspect: float) -> Scene:
    return _text(dice, aspect, 1)


def _two_lines(dice: Dice, aspect: float) -> Scene:
    return _text(dice, aspect, 2)


def _hex(dice: Dice, aspect: float) -> Scene:
    floor = draw.floor(dice, 0.9)
    some = things(dice, floor, 1 if dice.chance(0.6) else 2, hex_share=1.0)
    some = [replace(each, material=dice.pick(("matte", "shiny"))) for each in some]
    light = replace(draw.light(dice, 0.0), warmth="neutral")
    return _scene(dice, floor, side_by_side(dice, some), aspect, light=light)


def _pattern(dice: Dice, aspect: float) -> Scene:
    floor = draw.floor(dice, 0.9)
    some = things(dice, floor, dice.pick((1, 2)), plain=0.0)
    return _scene(dice, floor, side_by_side(dice, some), aspect)


def _studio(dice: Dice, aspect: float) -> Scene:
    floor = draw.floor(dice)
    some = things(dice, floor, dice.pick((1, 2)))
    camera = draw.camera(dice, EXTENTS[len(some)], calm=0.25)
    return _scene(dice, floor, side_by_side(dice, some), aspect, camera=camera, light=draw.light(dice, 0.25, calm=0.25))


def _negation(dice: Dice, aspect: float) -> Scene:
    floor = draw.floor(dice)
    if dice.chance(0.25) and dice.pairs != "unseen":
        who = draw.character(dice, floor)
        if dice.chance(0.6):
            who = replace(who, hat="none", hat_color=None)
        return _scene(dice, floor, (at(who, dice.around(0.0, 0.2), 0.0),), aspect, camera=draw.camera(dice, 1.5))
    count = dice.pick((1, 2, 3))
    return _scene(dice, floor, side_by_side(dice, things(dice, floor, count), 0.6), aspect)


_COMPOSERS: Final[Mapping[Kind, Callable[[Dice, float], Scene]]] = MappingProxyType(
    {
        "one": _one,
        "two": _two,
        "relation": _relation,
        "row": _row,
        "layout": _layout,
        "many": _many,
        "character": _character,
        "word": _word,
        "two_lines": _two_lines,
        "hex": _hex,
        "pattern": _pattern,
        "studio": _studio,
        "negation": _negation,
    }
)
