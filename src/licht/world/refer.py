"""Referring to what is already there: `the red sphere`, `the small object`, `the cube on the left`."""

from typing import Final

from licht.world.arrange import sides
from licht.world.phrases import Voice, thing_noun
from licht.world.scene import Character, Scene, Subject, Thing

_THING_CHOICES: Final[tuple[tuple[str, ...], ...]] = (
    ("color", "shape"),
    ("shape",),
    ("color", "shape"),
    ("size", "shape"),
    ("color",),
    ("size", "color", "shape"),
    ("size",),
    ("material", "shape"),
    ("material", "color", "shape"),
    ("size", "material", "color", "shape"),
    ("size", "material", "color", "pattern", "shape"),
)
_CHARACTER_CHOICES: Final[tuple[tuple[str, ...], ...]] = ((), ("body_color",), ("hat",), ("head_color",), ("body",))


def _value(subject: Subject, name: str) -> object:
    if isinstance(subject, Thing) and name == "pattern":
        return subject.pattern, subject.second
    return getattr(subject, name)


def _only_one(scene: Scene, index: int, names: tuple[str, ...]) -> bool:
    """Whether no other subject of the same type agrees in all of these attributes."""
    own = scene.subjects[index]
    return not any(
        type(other) is type(own) and all(_value(other, name) == _value(own, name) for name in names)
        for other in (*scene.subjects[:index], *scene.subjects[index + 1 :])
    )


def _character_words(who: Character, names: tuple[str, ...]) -> str:
    if names == ("body_color",):
        return f"the character with the {who.body_color} body"
    if names == ("head_color",):
        return f"the character with the {who.head_color} head"
    if names == ("body",):
        return f"the character with the {who.body} body"
    if names == ("hat",):
        return f"the character with the {who.hat} hat" if who.hat != "none" else "the character without a hat"
    return "the character"


def _plain_color(subject: Subject, names: tuple[str, ...]) -> bool:
    """A pattern makes `the red one` doubtful where another thing shows that colour too, so it is named with it."""
    return not (isinstance(subject, Thing) and subject.pattern != "plain" and names in {("color",), ("size",)})


def references(scene: Scene, index: int, voice: Voice) -> list[str]:
    """Definite descriptions that fit this subject and no other, the usual ones first; empty where there is none."""
    subject = scene.subjects[index]
    found: list[str] = []
    if isinstance(subject, Character):
        found = [_character_words(subject, c) for c in _CHARACTER_CHOICES if _only_one(scene, index, c)]
    else:
        for names in _THING_CHOICES:
            if _only_one(scene, index, names) and _plain_color(subject, names):
                found.append(f"the {thing_noun(subject, voice, names)}")
    told = sides(scene)
    same_side = [owner for owner, side in told.items() if side == told[index] and owner < len(scene.subjects)]
    if len(scene.subjects) > 1 and len(same_side) == 1:
        noun = "character" if isinstance(subject, Character) else subject.shape
        place = "in the middle" if told[index] == "middle" else f"on the {told[index]}"
        found.append(f"the {noun} {place}")
    return found


def refer(scene: Scene, index: int, voice: Voice) -> str | None:
    """One such description, by chance; None where the subject cannot be told apart."""
    found = references(scene, index, voice)
    if not found:
        return None
    return found[0] if voice.plain else voice.rng.choice(found)
