"""Noun phrases for things, characters, floors, lights, cameras and lettering, and the voice that chooses among them."""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeVar

from licht.world import vocabulary as v
from licht.world.scene import Camera, Character, Floor, Lettering, Light, Subject, Thing
from licht.world.templates import Templates
from licht.world.words import Split

T = TypeVar("T")

TEST_SHARE: Final = 0.5
"""How often a text of the test split takes a test-only template where there is one."""

SHAPE_WORDS: Final = MappingProxyType(
    {
        "sphere": ("sphere", "sphere", "ball"),
        "cube": ("cube", "cube", "box"),
        "cylinder": ("cylinder",),
        "cone": ("cone",),
        "torus": ("torus", "ring"),
        "capsule": ("capsule", "capsule", "pill"),
    }
)
PLURALS: Final = MappingProxyType(
    {
        "sphere": "spheres",
        "cube": "cubes",
        "cylinder": "cylinders",
        "cone": "cones",
        "torus": "rings",
        "capsule": "capsules",
    }
)
_SIZE_WORDS: Final = MappingProxyType({"small": ("small", "small", "little"), "large": ("large", "large", "big")})
_MATERIAL_WORDS: Final = MappingProxyType(
    {"matte": ("matte",), "shiny": ("shiny", "shiny", "glossy"), "metal": ("metal", "metal", "metallic")}
)
PATTERN_NOUNS: Final = MappingProxyType({"striped": "stripes", "dotted": "dots", "checkered": "checks"})
SIDE_WORDS: Final = MappingProxyType(
    {"left": "the left", "right": "the right", "front": "the front", "behind": "behind", "above": "above"}
)
NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass
class Voice:
    """Chooses words, and keeps a list of what it has said.

    `stated` holds dotted names such as `subjects[0].size` or `light.side`. With `plain`, the first word of every list
    is taken and everything is said: one and the same wording for a scene.
    """

    rng: random.Random
    split: Split
    plain: bool = False
    stated: set[str] = field(default_factory=set)

    def chance(self, probability: float) -> bool:
        """True with this probability (always for a plain voice)."""
        return self.plain or self.rng.random() < probability

    def pick(self, choices: Sequence[T]) -> T:
        """One of several."""
        return choices[0] if self.plain else choices[self.rng.randrange(len(choices))]

    def template(self, table: Templates, name: str) -> str:
        """A template of the split."""
        train, test = table[name]
        if self.split == "test" and test and not self.plain and self.rng.random() < TEST_SHARE:
            return self.pick(test)
        return self.pick(train)


def with_article(noun: str) -> str:
    """The noun phrase after `a` or `an`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def joined(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


# Subjects -------------------------------------------------------------------------------------------------------------


def _thing_head(thing: Thing, voice: Voice, say: Collection[str], shape: str) -> str:
    """Adjectives and noun without an article; `say` names the attributes to tell."""
    adjectives = []
    if "size" in say:
        adjectives.append(voice.pick(_SIZE_WORDS[thing.size]))
    if "material" in say:
        adjectives.append(voice.pick(_MATERIAL_WORDS[thing.material]))
    color = thing.color if "color" in say else ""
    tail = ""
    if "pattern" in say and thing.pattern != "plain" and thing.second is not None:
        form = 0 if voice.plain or not color else voice.rng.randrange(3)
        if form == 1:
            color = f"{thing.color} and {thing.second} {thing.pattern}"
        elif form == 2:
            adjectives.append(thing.pattern)
            color = f"{thing.color} and {thing.second}"
        else:
            tail = f" with {thing.second} {PATTERN_NOUNS[thing.pattern]}"
    if color and v.is_hex(color) and not tail and voice.chance(0.5):
        tail, color = voice.pick((f" in the color {color}", f" in {color}", f" with the color {color}")), ""
    return f"{' '.join(each for each in (*adjectives, color, shape) if each)}{tail}"


def thing_noun(thing: Thing, voice: Voice, say: Collection[str]) -> str:
    """`small shiny red cube with white stripes`: the attributes in `say` and the shape, without an article."""
    return _thing_head(thing, voice, say, voice.pick(SHAPE_WORDS[thing.shape]) if "shape" in say else "object")


def things_noun(thing: Thing, voice: Voice) -> str:
    """`small shiny red cubes`: several equal things, fully described, without a number."""
    return _thing_head(thing, voice, ("size", "material", "color", "pattern"), PLURALS[thing.shape])


def character_noun(who: Character, voice: Voice, say: Collection[str]) -> str:
    """`character with a round red body, ...` without commas and without an article."""
    traits = []
    if "body" in say:
        traits.append(with_article(f"{who.body} {who.body_color} body"))
    if "head" in say:
        traits.append(with_article(f"{who.head_color} head"))
    worn = None
    if "hat" in say:
        worn = f"{who.hat_color} {who.hat} hat" if who.hat != "none" else "no hat"
    if worn is not None and (not traits or voice.chance(0.5)):
        traits.append(worn if who.hat == "none" else with_article(worn))
        worn = None
    text = voice.pick(("character", "character", "figure"))
    if traits:
        text += f" with {' and '.join(traits)}"
    if worn is not None:
        text += f" wearing {worn if who.hat == 'none' else with_article(worn)}"
    if "arms" in say:
        text += " with raised arms" if who.arms == "up" else " with lowered arms"
    if "facing" in say:
        text += " looking at the camera" if who.facing == "camera" else f" looking to the {who.facing}"
    return text


THING_ATTRIBUTES: Final = ("size", "material", "color", "pattern", "shape")
CHARACTER_ATTRIBUTES: Final = ("body", "head", "hat", "arms", "facing")


def _told(subject: Subject, voice: Voice, full: bool) -> list[str]:
    """Which attributes a caption tells: all, or (partly) only those that would mislead if they were left out."""
    if isinstance(subject, Character):
        odd = [("arms", subject.arms == "up"), ("facing", subject.facing != "camera")]
        said = ["body", "head"]
        said += ["hat"] if subject.hat != "none" or voice.chance(0.5) else []
        return said + [name for name, unusual in odd if unusual or (full and voice.chance(0.3))]
    said = ["color", "shape", "pattern"]
    said += ["size"] if full or voice.chance(0.5) else []
    said += ["material"] if full or subject.material == "metal" or voice.chance(0.5) else []
    return said


def subject_phrase(subject: Subject, index: int, voice: Voice, full: bool = True) -> str:
    """The subject with its article, noting what was told of it."""
    said = _told(subject, voice, full)
    voice.stated.update(f"subjects[{index}].{name}" for name in said)
    noun = thing_noun(subject, voice, said) if isinstance(subject, Thing) else character_noun(subject, voice, said)
    return with_article(noun)


# Surroundings ---------------------------------------------------------------------------------------------------------


def floor_adjective(floor: Floor) -> str:
    """`gray`, `checkered black and white` or `wooden`."""
    if floor.kind == "wooden":
        return "wooden"
    return floor.color if floor.second is None else f"checkered {floor.color} and {floor.second}"


def floor_noun(floor: Floor) -> str:
    """`a gray floor`."""
    return with_article(f"{floor_adjective(floor)} floor")


def light_noun(light: Light, voice: Voice) -> str:
    """`light`, `warm light`, `low cool light`: without an article."""
    words: list[str] = []
    if light.side != "above" and (light.height == "low" or voice.chance(0.15)):
        words.append(light.height)
        voice.stated.add("light.height")
    if light.warmth != "neutral" or voice.chance(0.12):
        words.append(light.warmth)
        voice.stated.add("light.warmth")
    voice.stated.add("light.side")
    return " ".join((*words, "light"))


def camera_terms(camera: Camera, voice: Voice, height_share: float, distance_share: float) -> list[str]:
    """Names of the camera templates to use; what is unusual is always told."""
    terms = []
    if camera.height != "eye level" or voice.chance(height_share):
        terms.append(f"camera_{camera.height}")
        voice.stated.add("camera.height")
    if camera.distance != "medium" or voice.chance(distance_share):
        terms.append(f"camera_{camera.distance}")
        voice.stated.add("camera.distance")
    return terms


# Lettering ------------------------------------------------------------------------------------------------------------


def quoted(text: Lettering, two_lines: str) -> str:
    """The lines in quotes, two of them by a template."""
    lines = [f'"{line}"' for line in text.lines]
    return lines[0] if len(lines) == 1 else two_lines.format(first=lines[0], second=lines[1])


def letters_style(text: Lettering, voice: Voice) -> str:
    """`large red serif letters`: some or all of size, colour and font."""
    parts = (("size", text.size), ("color", text.color), ("font", text.font))
    chosen = list(parts)
    if not voice.plain:
        chosen = voice.rng.choice(([*parts], [parts[1]], [parts[0], parts[1]], [parts[1], parts[2]]))
    voice.stated.update(f"lettering.{name}" for name, _ in chosen)
    return f"{' '.join(value for _, value in chosen)} letters"
