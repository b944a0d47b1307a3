"""Exact edits: a scene, an instruction in several phrasings, and the scene that is right afterwards.

The camera stays where it is (but for edits of the camera), so that everything an edit does not touch is drawn equally.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from licht.core.errors import InvalidRequest
from licht.world import draw
from licht.world import phrases as p
from licht.world import vocabulary as v
from licht.world.arrange import arrange, sides
from licht.world.captions import lettering_clause
from licht.world.draw import Dice, Pairs
from licht.world.heldout import shows_held_out
from licht.world.layout import floor_contrast, is_clear, lightness_contrast, text_fits
from licht.world.parts import footprint_of
from licht.world.phrases import Voice
from licht.world.refer import refer
from licht.world.sample import Kind, at, sample_scene, things
from licht.world.scene import Character, Lettering, Scene, Subject, Thing
from licht.world.templates import EDITS
from licht.world.words import Split, sample_word

EditKind = Literal[
    "recolor", "restyle", "resize", "move", "add", "remove", "replace", "relight", "floor", "text", "camera"
]
EDIT_KINDS: Final[tuple[EditKind, ...]] = get_args(EditKind)
PHRASINGS: Final = 4
_ATTEMPTS: Final = 400

Say = Callable[[Voice], str]
"""Words an instruction, differently each time; without the clause that all the rest stays."""


@dataclass(frozen=True)
class Edit:
    """Before, instruction, after.

    `subject` is the index of what is changed (in `after` for `add`, else in `before`), or None where the change is not
    one subject's.
    """

    kind: EditKind
    before: Scene
    after: Scene
    instructions: tuple[str, ...]
    subject: int | None = None


@dataclass(frozen=True)
class _Change:
    before: Scene
    after: Scene
    say: Say
    subject: int | None = None


def sample_edit(
    kind: EditKind, seed: int, index: int, *, split: Split = "train", pairs: Pairs = "seen", aspect: float = 1.0
) -> Edit:
    """A random edit of a kind with up to `PHRASINGS` different instructions; the same arguments give the same one.

    Raises `InvalidRequest` for an unknown kind.
    """
    if kind not in _CHANGES:
        raise InvalidRequest(f"kind is {kind!r}; expected one of {', '.join(EDIT_KINDS)}", field="kind")
    dice = Dice.of(split, pairs, "edit", kind, seed, index, round(aspect, 4))
    for attempt in range(_ATTEMPTS):
        base = dice.weighted(_BASES[kind])
        scene = sample_scene(base, seed, index * _ATTEMPTS + attempt, split=split, pairs=pairs, aspect=aspect)
        change = _CHANGES[kind](dice, scene)
        if change is None or not is_clear(change.after) or not is_clear(change.before):
            continue
        if pairs == "seen" and any(shows_held_out(subject) for subject in change.after.subjects):
            continue
        texts = [_worded(Voice(dice.rng, split), change.say, kind) for _ in range(2 * PHRASINGS)]
        return Edit(kind, change.before, change.after, tuple(dict.fromkeys(texts))[:PHRASINGS], change.subject)
    raise AssertionError(f"no clear edit of kind {kind} for seed {seed}, index {index} in {_ATTEMPTS} attempts")


def _worded(voice: Voice, say: Say, kind: EditKind) -> str:
    keep = voice.template(EDITS, "keep") if kind != "camera" and voice.chance(0.25) else ""
    return say(voice) + keep


def change_mask(before_BHWC: Tensor, after_BHWC: Tensor) -> Tensor:
    """Pixels (B, H, W, bool) in which two uint8 pictures differ at all."""
    return (before_BHWC != after_BHWC).any(-1)


def change_weight(mask_BHW: Tensor, radius_px: int = 1) -> Tensor:
    """The mask grown by `radius_px` on all sides, as bool: where a model may be forgiven for touching the picture."""
    size = 2 * radius_px + 1
    grown = torch.nn.functional.max_pool2d(mask_BHW[:, None].float(), size, 1, radius_px)
    return grown[:, 0] > 0


# Helpers --------------------------------------------------------------------------------------------------------------


def _target(dice: Dice, scene: Scene, kinds: type | tuple[type, ...] = (Thing, Character)) -> int | None:
    """A random subject that can be referred to."""
    every = [index for index, subject in enumerate(scene.subjects) if isinstance(subject, kinds)]
    every = [index for index in every if refer(scene, index, Voice(dice.rng, "train", plain=True)) is not None]
    return dice.pick(every) if every else None


def _name(scene: Scene, index: int, voice: Voice) -> str:
    found = refer(scene, index, voice)
    return found if found is not None else "the object"


def _carries(scene: Scene, index: int) -> bool:
    return any(isinstance(each, Thing) and each.on == index for each in scene.subjects)


def _whole(subject: Subject, voice: Voice) -> str:
    """A full description with its article, for what is new."""
    if isinstance(subject, Thing):
        return p.with_article(p.thing_noun(subject, voice, p.THING_ATTRIBUTES))
    said = ["body", "head", "hat"] + (["arms"] if subject.arms == "up" else [])
    said += ["facing"] if subject.facing != "camera" else []
    return p.with_article(p.character_noun(subject, voice, said))


def _other_color(dice: Dice, scene: Scene, old: str, hex_share: float = 0.12) -> str | None:
    color = draw.object_color(dice, scene.floor, hex_share)
    return color if v.color_distance(v.hex_of(color), v.hex_of(old)) >= 0.12 else None


# Subjects -------------------------------------------------------------------------------------------------------------


def _recolor(dice: Dice, scene: Scene) -> _Change | None:
    index = _target(dice, scene)
    if index is None:
        return None
    subject = scene.subjects[index]
    if isinstance(subject, Character):
        return _recolor_character(dice, scene, index, subject)
    color = _other_color(dice, scene, subject.color)
    if color is None or (
        subject.second is not None
        and v.color_distance(v.hex_of(color), v.hex_of(subject.second)) < draw.PATTERN_CONTRAST
    ):
        return None
    if subject.pattern != "plain":
        return None

    def say(voice: Voice) -> str:
        return voice.template(EDITS, "recolor").format(a=_name(scene, index, voice), color=color)

    return _Change(scene, scene.with_subject(index, replace(subject, color=color)), say, index)


def _recolor_character(dice: Dice, scene: Scene, index: int, who: Character) -> _Change | None:
    part = dice.pick(("body", "head", "hat"))
    old = getattr(who, f"{part}_color")
    color = _other_color(dice, scene, old, 0.0) if old is not None else None
    if color is None or color in {who.body_color, who.head_color, who.hat_color}:
        return None
    if part == "head" and v.oklab_of(v.hex_of(color))[0] < draw.HEAD_LIGHTNESS:
        return None
    if part == "body":
        changed = replace(who, body_color=color)
    elif part == "head":
        changed = replace(who, head_color=color)
    else:
        changed = replace(who, hat_color=color)

    def say(voice: Voice) -> str:
        whole = f"the {part} of {_name(scene, index, voice)}"
        return voice.template(EDITS, "recolor").format(a=whole, color=color)

    return _Change(scene, scene.with_subject(index, changed), say, index)


def _restyle(dice: Dice, scene: Scene) -> _Change | None:
    index = _target(dice, scene, Thing)
    if index is None:
        return None
    thing = scene.subjects[index]
    if not isinstance(thing, Thing):
        return None
    if thing.pattern != "plain":
        plain = replace(thing, pattern="plain", second=None)
        noun = p.PATTERN_NOUNS[thing.pattern]

        def say_off(voice: Voice) -> str:
            return voice.template(EDITS, "pattern_off").format(a=_name(scene, index, voice), pattern=noun)

        return _Change(scene, scene.with_subject(index, plain), say_off, index)
    if thing.material != "metal" and not v.is_hex(thing.color) and dice.chance(0.5):
        return _add_pattern(dice, scene, index, thing)
    material = dice.pick([each for each in v.MATERIALS if each != thing.material])
    changed = replace(thing, material=material)

    def say(voice: Voice) -> str:
        new = p.with_article(p.thing_noun(changed, voice, ("material", "color", "shape")))
        return voice.template(EDITS, "restyle").format(a=_name(scene, index, voice), look=material, new=new)

    return _Change(scene, scene.with_subject(index, changed), say, index)


def _add_pattern(dice: Dice, scene: Scene, index: int, thing: Thing) -> _Change | None:
    pattern = dice.pick(v.PATTERNS[1:])
    second = dice.pick(tuple(v.COLORS))
    if v.color_distance(v.hex_of(second), v.hex_of(thing.color)) < draw.PATTERN_CONTRAST:
        return None

    def say(voice: Voice) -> str:
        return voice.template(EDITS, "pattern_on").format(
            a=_name(scene, index, voice), color=second, pattern=p.PATTERN_NOUNS[pattern]
        )

    return _Change(scene, scene.with_subject(index, replace(thing, pattern=pattern, second=second)), say, index)


def _resize(dice: Dice, scene: Scene) -> _Change | None:
    index = _target(dice, scene, Thing)
    if index is None or _carries(scene, index):
        return None
    thing = scene.subjects[index]
    if not isinstance(thing, Thing):
        return None
    changed = replace(thing, size="small" if thing.size == "large" else "large")

    def say(voice: Voice) -> str:
        new = p.with_article(p.thing_noun(changed, voice, ("size", "color", "shape")))
        return voice.template(EDITS, "resize").format(a=_name(scene, index, voice), size=changed.size, new=new)

    return _Change(scene, scene.with_subject(index, changed), say, index)


def _move(dice: Dice, scene: Scene) -> _Change | None:
    index = _target(dice, scene)
    if index is None or _carries(scene, index):
        return None
    others = [each for each in range(len(scene.subjects)) if each != index]
    if not others or dice.chance(0.35):
        return _move_aside(dice, scene, index)
    anchor = dice.pick(others)
    subject, other = scene.subjects[index], scene.subjects[anchor]
    if isinstance(other, Thing) and other.on is not None:
        return None
    reach = footprint_of(subject) + footprint_of(other)
    how, dx, dz = dice.pick(
        (("to the left of", -1, 0), ("to the right of", 1, 0), ("in front of", 0, 1), ("behind", 0, -1))
    )
    gap = dice.rng.uniform(0.2, 0.4) if dz == 0 else dice.rng.uniform(0.5, 0.8)
    x, z = other.x + dx * (reach + gap), other.z + dz * (reach + gap) + (dice.around(0.0, 0.1) if dz == 0 else 0.0)
    if dz:
        x += dice.pick((-1, 1)) * 0.3
    moved = at(subject, x, z)
    if isinstance(moved, Thing):
        moved = replace(moved, on=None)
    if (subject.x - other.x) * dx > 0 or (subject.z - other.z) * dz > 0.5:
        return None

    def say(voice: Voice) -> str:
        place = f"{how} {_name(scene, anchor, voice)}"
        return voice.template(EDITS, "move").format(a=_name(scene, index, voice), place=place)

    return _Change(scene, scene.with_subject(index, moved), say, index)


def _move_aside(dice: Dice, scene: Scene, index: int) -> _Change | None:
    """To the left, to the right or into the middle of the picture."""
    told = sides(scene)
    side = dice.pick([each for each in ("left", "middle", "right") if each != told[index]])
    x = {"left": -0.62, "middle": 0.0, "right": 0.62}[side] * scene.camera.extent
    subject = scene.subjects[index]
    if isinstance(subject, Thing) and subject.on is not None:
        return None
    after = scene.with_subject(index, at(subject, x, subject.z))
    if sides(after)[index] != side:
        return None
    place = "in the middle" if side == "middle" else f"to the {side}"

    def say(voice: Voice) -> str:
        return voice.template(EDITS, "move").format(a=_name(scene, index, voice), place=place)

    return _Change(scene, after, say, index)


def _without(scene: Scene, index: int) -> Scene:
    """The scene without one subject; what stands on others keeps its support."""
    kept = [each for at_, each in enumerate(scene.subjects) if at_ != index]
    fixed = [
        replace(each, on=each.on - 1) if isinstance(each, Thing) and each.on is not None and each.on > index else each
        for each in kept
    ]
    return replace(scene, subjects=tuple(fixed))


def _place_words(scene: Scene, index: int, voice: Voice) -> str | None:
    """Where a subject is, in words that need only the others."""
    subject = scene.subjects[index]
    rest = _without(scene, index)
    if isinstance(subject, Thing) and subject.on is not None:
        support = subject.on - (1 if subject.on > index else 0)
        return f"on top of {_name(rest, support, voice)}"
    arrangement = arrange(scene)
    order = [unit[0] for unit in arrangement.units]
    step = order.index(index)
    if arrangement.kind == "depth" and len(scene.subjects) == 2:
        return f"{'in front of' if step == 0 else 'behind'} {_name(rest, 0, voice)}"
    if arrangement.kind != "row":
        return None
    if 0 < step < len(order) - 1 and len(order) == 3:
        left, right = (_name(rest, each - (1 if each > index else 0), voice) for each in (order[0], order[2]))
        return f"between {left} and {right}"
    beside = order[step + 1] if step == 0 else order[step - 1]
    return f"to the {'left' if step == 0 else 'right'} of {_name(rest, beside - (1 if beside > index else 0), voice)}"


def _add(dice: Dice, scene: Scene) -> _Change | None:
    if len(scene.subjects) < 2:
        return None
    index = dice.rng.randrange(len(scene.subjects))
    before = _without(scene, index) if not _carries(scene, index) else None
    if before is None or _place_words(scene, index, Voice(dice.rng, "train", plain=True)) is None:
        return None
    if any(refer(before, each, Voice(dice.rng, "train", plain=True)) is None for each in range(len(before.subjects))):
        return None

    def say(voice: Voice) -> str:
        place = _place_words(scene, index, voice)
        return voice.template(EDITS, "add").format(new=_whole(scene.subjects[index], voice), place=place)

    return _Change(before, scene, say, index)


def _remove(dice: Dice, scene: Scene) -> _Change | None:
    index = _target(dice, scene)
    if index is None or _carries(scene, index):
        return None

    def say(voice: Voice) -> str:
        return voice.template(EDITS, "remove").format(a=_name(scene, index, voice))

    return _Change(scene, _without(scene, index), say, index)


def _replace(dice: Dice, scene: Scene) -> _Change | None:
    index = _target(dice, scene, Thing)
    if index is None or _carries(scene, index):
        return None
    old = scene.subjects[index]
    new = things(dice, scene.floor, 1)[0]
    if not isinstance(old, Thing) or (new.shape == old.shape and new.color == old.color):
        return None
    placed = replace(new, x=old.x, z=old.z, on=old.on)

    def say(voice: Voice) -> str:
        return voice.template(EDITS, "replace").format(a=_name(scene, index, voice), new=_whole(new, voice))

    return _Change(scene, scene.with_subject(index, placed), say, index)


# Surroundings ---------------------------------------------------------------------------------------------------------


def _relight(dice: Dice, scene: Scene) -> _Change | None:
    light = replace(draw.light(dice, 0.0), spot=scene.light.spot)
    if dice.chance(0.35):
        light = replace(scene.light, warmth=light.warmth)
        if light == scene.light:
            return None

        def say_warmth(voice: Voice) -> str:
            return voice.template(EDITS, "warmth").format(warmth=light.warmth)

        return _Change(scene, replace(scene, light=light), say_warmth)
    if light.side == scene.light.side:
        return None

    def say(voice: Voice) -> str:
        words: list[str] = [light.height] if light.height != scene.light.height and light.side != "above" else []
        words += [light.warmth] if light.warmth != scene.light.warmth else []
        noun = " ".join((*words, "light"))
        by, be = (f" by {noun}", f" and be {' and '.join(words)}") if words else ("", "")
        return voice.template(EDITS, "relight").format(light=noun, by=by, be=be, side=p.SIDE_WORDS[light.side])

    return _Change(scene, replace(scene, light=light), say)


def _floor(dice: Dice, scene: Scene) -> _Change | None:
    floor = draw.floor(dice)
    colors = [c for s in scene.subjects if isinstance(s, Thing) for c in (s.color,)]
    colors += [c for s in scene.subjects if isinstance(s, Character) for c in (s.body_color, s.head_color)]
    if floor == scene.floor or any(floor_contrast(floor.hexes, v.hex_of(color)) < draw.CONTRAST for color in colors):
        return None
    text = scene.lettering
    if text is not None and text.place != "sign":
        return None

    def say(voice: Voice) -> str:
        return voice.template(EDITS, "floor").format(floor=p.floor_noun(floor), surface=p.floor_adjective(floor))

    return _Change(scene, replace(scene, floor=floor), say)


def _text_ground(scene: Scene, text: Lettering) -> Sequence[str]:
    return (v.hex_of(text.board),) if text.board is not None else scene.floor.hexes


def _text(dice: Dice, scene: Scene) -> _Change | None:
    old = scene.lettering
    if old is None:
        return None
    word = "word" if len(old.lines) == 1 else "text"
    how = dice.weighted((("word", 0.55), ("color", 0.2), ("add", 0.12), ("remove", 0.13)))
    bare = replace(scene, lettering=None)
    if how == "add":
        return _Change(bare, scene, _say_text_added(old))
    if how == "remove":

        def say_removed(voice: Voice) -> str:
            return voice.template(EDITS, "text_remove").format(word=word, old=p.quoted(old, "{first} and {second}"))

        return _Change(scene, bare, say_removed)
    if how == "color":
        color = dice.pick(tuple(v.COLORS))
        fits = (
            lightness_contrast(_text_ground(scene, old), v.hex_of(color)) >= draw.TEXT_CONTRAST and color != old.color
        )

        def say_color(voice: Voice) -> str:
            return voice.template(EDITS, "text_color").format(word=word, color=color)

        return _Change(scene, replace(scene, lettering=replace(old, color=color)), say_color) if fits else None
    return _change_word(dice, scene, old, word)


def _say_text_added(text: Lettering) -> Say:
    def say(voice: Voice) -> str:
        template = voice.template(EDITS, "text_add")
        if "{new}" in template and text.place == "sign":
            template = "add {t}"
        return template.format(
            t=lettering_clause(text, voice),
            new=p.quoted(text, "{first} above {second}"),
            place=text.place,
            color=text.color,
        )

    return say


def _change_word(dice: Dice, scene: Scene, old: Lettering, word: str) -> _Change | None:
    line = dice.rng.randrange(len(old.lines))
    fresh = sample_word(dice.rng, dice.split)
    lines = tuple(fresh if step == line else each for step, each in enumerate(old.lines))
    new = replace(old, lines=lines)
    if fresh in old.lines or not text_fits(new, scene.aspect):
        return None

    def say(voice: Voice) -> str:
        template = voice.template(EDITS, "text")
        if len(lines) == 2 and "{old}" not in template:
            template = "replace {old} with {new}"
        return template.format(word=word, old=f'"{old.lines[line]}"', new=f'"{fresh}"')

    return _Change(scene, replace(scene, lettering=new), say)


def _camera(dice: Dice, scene: Scene) -> _Change | None:
    camera = scene.camera
    if dice.chance(0.6):
        height = dice.pick([each for each in v.CAMERA_HEIGHTS if each != camera.height])
        name = "camera_eye level" if height == "eye level" else "camera_height"

        def say_height(voice: Voice) -> str:
            return voice.template(EDITS, name).format(height=height)

        return _Change(scene, replace(scene, camera=replace(camera, height=height)), say_height)
    distance = dice.pick([each for each in v.CAMERA_DISTANCES if each != camera.distance])
    words = {"close": "close", "medium": "at a medium distance", "far": "far away"}[distance]

    def say(voice: Voice) -> str:
        template = voice.template(EDITS, "camera_distance")
        spoken = {"close": "close up", "medium": "a medium distance", "far": "far away"}[distance]
        return template.format(distance=spoken if template.startswith("show") else words)

    return _Change(scene, replace(scene, camera=replace(camera, distance=distance)), say)


_SOME: Final[tuple[tuple[Kind, float], ...]] = (
    ("one", 0.18),
    ("two", 0.28),
    ("relation", 0.14),
    ("row", 0.16),
    ("layout", 0.08),
    ("character", 0.12),
    ("hex", 0.04),
)
_SEVERAL: Final[tuple[tuple[Kind, float], ...]] = (
    ("two", 0.4),
    ("relation", 0.25),
    ("row", 0.2),
    ("character", 0.15),
)
_BASES: Final[Mapping[EditKind, tuple[tuple[Kind, float], ...]]] = MappingProxyType(
    {
        "recolor": _SOME,
        "restyle": (*_SOME, ("pattern", 0.3)),
        "resize": _SOME,
        "move": _SOME,
        "add": _SEVERAL,
        "remove": _SOME,
        "replace": _SOME,
        "relight": (*_SOME, ("word", 0.1)),
        "floor": _SOME,
        "text": (("word", 0.7), ("two_lines", 0.3)),
        "camera": _SOME,
    }
)
_CHANGES: Final[Mapping[EditKind, Callable[[Dice, Scene], _Change | None]]] = MappingProxyType(
    {
        "recolor": _recolor,
        "restyle": _restyle,
        "resize": _resize,
        "move": _move,
        "add": _add,
        "remove": _remove,
        "replace": _replace,
        "relight": _relight,
        "floor": _floor,
        "text": _text,
        "camera": _camera,
    }
)
