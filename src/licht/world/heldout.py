"""What training never sees: pairs of a colour and a shape. Words: see `words.word_split`; phrasings: `templates`."""

from typing import Final

from licht.world.scene import Character, Subject, Thing
from licht.world.vocabulary import Shape, is_hex, nearest_name

HELD_OUT_PAIRS: Final[frozenset[tuple[str, Shape]]] = frozenset(
    {
        ("orange", "cone"),
        ("purple", "cube"),
        ("cyan", "sphere"),
        ("pink", "cylinder"),
        ("green", "torus"),
        ("yellow", "capsule"),
        ("brown", "sphere"),
        ("black", "cylinder"),
    }
)
"""About a tenth of all pairs of a named colour and a shape."""

_BODY_SHAPE: Final[dict[str, Shape]] = {"round": "sphere", "square": "cube", "pointed": "cone"}


def is_held_out(color: str, shape: Shape) -> bool:
    """Whether a colour (named, or nearest to a name) and a shape are kept for testing."""
    name = nearest_name(color) if is_hex(color) else color
    return (name, shape) in HELD_OUT_PAIRS


def color_shapes(subject: Subject) -> list[tuple[str, Shape]]:
    """All pairs of a colour and a shape that a subject shows, patterns and the parts of characters included."""
    if isinstance(subject, Thing):
        return [(color, subject.shape) for color in (subject.color, subject.second) if color is not None]
    return _character_pairs(subject)


def _character_pairs(who: Character) -> list[tuple[str, Shape]]:
    pairs: list[tuple[str, Shape]] = [(who.body_color, _BODY_SHAPE[who.body]), (who.head_color, "sphere")]
    if who.hat_color is not None:
        pairs.append((who.hat_color, "cone" if who.hat == "pointed" else "cylinder"))
    return pairs


def shows_held_out(subject: Subject) -> bool:
    """Whether any part of a subject shows a pair that is kept for testing."""
    return any(is_held_out(color, shape) for color, shape in color_shapes(subject))
