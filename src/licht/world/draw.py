"""Random subjects, floors, lights, cameras and lettering: the dice behind `sample`, `edits` and `tasks`."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from licht.world import vocabulary as v
from licht.world.heldout import HELD_OUT_PAIRS, is_held_out, shows_held_out
from licht.world.layout import floor_contrast, lightness_contrast, text_fits
from licht.world.scene import Camera, Character, Floor, Lettering, Light, Thing
from licht.world.words import Split, sample_word

Pairs = Literal["seen", "unseen", "any"]
T = TypeVar("T")

CONTRAST: Final = 0.11
PATTERN_CONTRAST: Final = 0.22
TEXT_CONTRAST: Final = 0.34
HEAD_LIGHTNESS: Final = 0.55  # below that, the eyes of a character cannot be made out
CALM: Final = 0.8
"""How often light and camera are as usual. What is rare costs a small model as much as what is common."""


@dataclass(frozen=True)
class Dice:
    """One stream of chance and what it may show.

    `pairs` says which pairs of a colour and a shape things may have: those of training ("seen"), those kept for
    testing ("unseen": the first thing of a scene has one, see `thing`), or all.
    """

    rng: random.Random
    split: Split
    pairs: Pairs = "seen"

    @classmethod
    def of(cls, split: Split, pairs: Pairs, *key: object) -> "Dice":
        """A stream that depends on its key alone: not on a process, a batch or an order."""
        return cls(random.Random("/".join(str(each) for each in (*key, split, pairs))), split, pairs)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.rng.random() < probability

    def pick(self, choices: Sequence[T]) -> T:
        """One of several, all alike."""
        return choices[self.rng.randrange(len(choices))]

    def weighted(self, table: Sequence[tuple[T, float]]) -> T:
        """One of several by weight."""
        return self.rng.choices([value for value, _ in table], [weight for _, weight in table])[0]

    def around(self, middle: float, spread: float) -> float:
        """A number within `spread` of the middle, in thousandths."""
        return round(middle + self.rng.uniform(-spread, spread), 3)


def named_or_hex(dice: Dice, hex_share: float) -> str:
    """A named colour, or any `#rrggbb`."""
    if not dice.chance(hex_share):
        return dice.pick(tuple(v.COLORS))
    return f"#{dice.rng.randrange(1 << 24):06x}"


def object_color(dice: Dice, floor: Floor, hex_share: float = 0.0) -> str:
    """A colour that stands out from the floor."""
    while True:
        color = named_or_hex(dice, hex_share)
        if floor_contrast(floor.hexes, v.hex_of(color)) >= CONTRAST:
            return color


def surface(dice: Dice, first: str) -> tuple[v.Pattern, str]:
    """A pattern and its second colour, which stands out from the first."""
    pattern = dice.pick(v.PATTERNS[1:])
    while True:
        color = dice.pick(tuple(v.COLORS))
        if v.color_distance(v.hex_of(first), v.hex_of(color)) >= PATTERN_CONTRAST:
            return pattern, color


def _held_out_thing(dice: Dice, floor: Floor) -> tuple[str, v.Shape]:
    while True:
        color, shape = dice.pick(sorted(HELD_OUT_PAIRS))
        if floor_contrast(floor.hexes, v.hex_of(color)) >= CONTRAST:
            return color, shape


def thing(dice: Dice, floor: Floor, *, hex_share: float = 0.0, plain: float = 0.85, unseen: bool = False) -> Thing:
    """A random thing at the origin. `unseen` forces a held-out pair of colour and shape (and a plain surface)."""
    if unseen:
        color, shape = _held_out_thing(dice, floor)
        return Thing(shape, color, dice.pick(v.SIZES), dice.pick(("matte", "shiny")), turn_deg=turn(dice, shape))
    while True:
        shape = dice.pick(v.SHAPES)
        color = object_color(dice, floor, hex_share)
        material: v.Material = dice.weighted((("matte", 0.45), ("shiny", 0.38), ("metal", 0.17)))
        pattern: v.Pattern = "plain"
        second = None
        if material != "metal" and not v.is_hex(color) and not dice.chance(plain):
            pattern, second = surface(dice, color)
        made = Thing(shape, color, dice.pick(v.SIZES), material, pattern, second, turn_deg=turn(dice, shape))
        if dice.pairs == "any" or not shows_held_out(made):
            return made


def turn(dice: Dice, shape: v.Shape) -> float:
    """An angle about the vertical: rings roughly face the camera, cubes show two sides, the left one more of itself.

    No caption tells it, so it varies little.
    """
    spread = {"torus": 10.0, "cube": 10.0}.get(shape, 0.0)
    middle = 30.0 if shape == "cube" else 0.0
    return round(dice.rng.uniform(middle - spread, middle + spread), 1) if spread else 0.0


def character(dice: Dice, floor: Floor) -> Character:
    """A random character at the origin."""
    while True:
        hat: v.Hat = dice.weighted((("pointed", 0.38), ("top", 0.34), ("none", 0.28)))
        body_color, head_color = object_color(dice, floor), object_color(dice, floor)
        hat_color = object_color(dice, floor) if hat != "none" else None
        used = [color for color in (body_color, head_color, hat_color) if color is not None]
        if v.oklab_of(v.hex_of(head_color))[0] < HEAD_LIGHTNESS or len(set(used)) < len(used):
            continue
        facing: v.Facing = dice.weighted((("camera", 0.6), ("left", 0.2), ("right", 0.2)))
        arms: v.Arms = dice.weighted((("down", 0.65), ("up", 0.35)))
        made = Character(dice.pick(v.BODIES), body_color, head_color, hat, hat_color, facing, arms)
        if dice.pairs == "any" or not shows_held_out(made):
            return made


def floor(dice: Dice, plain: float = 0.85) -> Floor:
    """A random floor."""
    if dice.chance(plain):
        return Floor("plain", dice.pick(tuple(v.FLOOR_COLORS)))
    if dice.chance(0.5):
        return Floor("wooden", "wood")
    first, second = dice.pick(v.CHECKERED_FLOORS)
    return Floor("checkered", first, second)


def light(dice: Dice, spot_share: float = 0.03, calm: float = CALM) -> Light:
    """A random light; with probability `calm` each, high, neutral, and from the left or the right."""
    side: v.LightSide = dice.pick(("left", "right") if dice.chance(calm) else v.LIGHT_SIDES)
    spot: v.Spot = dice.pick(v.SPOTS[1:]) if dice.chance(spot_share) else "none"
    warmth: v.Warmth = "neutral" if dice.chance(calm) else dice.pick(("warm", "cool"))
    height: v.LightHeight = "high" if side == "above" or dice.chance(calm) else "low"
    return Light(side, height, warmth, spot)


def camera(dice: Dice, extent: float, calm: float = CALM) -> Camera:
    """A random camera; with probability `calm` each, at eye level and at medium distance."""
    height: v.CameraHeight = "eye level" if dice.chance(calm) else dice.pick(("low", "high"))
    distance: v.CameraDistance = "medium" if dice.chance(calm) else dice.pick(("close", "far"))
    return Camera(height, distance, extent)


def lettering(dice: Dice, floor: Floor, aspect: float, lines: int = 1, place: v.TextPlace | None = None) -> Lettering:
    """Random words of the split that are readable on the floor's tone (or on their board)."""
    while True:
        words = tuple(sample_word(dice.rng, dice.split, 5 if dice.chance(0.7) else 8) for _ in range(lines))
        drawn: v.TextPlace = dice.weighted((("top", 0.6), ("sign", 0.25), ("bottom", 0.15)))
        where = drawn if place is None else place
        size: v.TextSize = dice.weighted((("small", 0.15), ("medium", 0.4), ("large", 0.45 if lines == 1 else 0.0)))
        color = dice.pick(("white", "black")) if dice.chance(0.5) else named_or_hex(dice, 0.08)
        board = dice.pick(("white", "white", "black", "yellow", "blue", "red", "green")) if where == "sign" else None
        ground = (v.hex_of(board),) if board is not None else floor.hexes
        font: v.FontName = dice.weighted((("sans", 0.6), ("serif", 0.2), ("typewriter", 0.2)))
        made = Lettering(words, font, size, color, where, board)
        readable = lightness_contrast(ground, v.hex_of(color)) >= TEXT_CONTRAST and len(set(words)) == len(words)
        if readable and text_fits(made, aspect):
            return made


def allowed(dice: Dice, color: str, shape: v.Shape) -> bool:
    """Whether the dice may show this colour on this shape."""
    return dice.pairs == "any" or not is_held_out(color, shape)
