"""Captions: a scene in words, in many phrasings, and what of the scene each of them says."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from licht.core.errors import InvalidRequest
from licht.world import phrases as p
from licht.world import vocabulary as v
from licht.world.arrange import arrange, sides
from licht.world.phrases import Voice, joined
from licht.world.scene import Character, Lettering, Scene, Thing
from licht.world.structured import structured_prompt
from licht.world.templates import LETTERING, NEGATIONS, RELATIONS, SENTENCES, SURROUNDINGS
from licht.world.words import Split

Style = Literal["short", "prose", "layout", "negation", "json"]
STYLES: Final[tuple[Style, ...]] = get_args(Style)
_FULL_SUBJECTS: Final = 5  # beyond, a caption that tells everything of everyone is too long for a small model's text
_PROSE_SUBJECTS: Final = 4
_JSON_SUBJECTS: Final = 2
_REDUNDANT: Final = frozenset({"scene", "style", "color_palette", "composition"})
_PLACED: Final = ("on ", "in ", "behind ", "to ", "from ", "back ")


@dataclass(frozen=True)
class Caption:
    """A text and what it commits to.

    `stated` holds dotted names of what is told (`subjects[0].size`, `light.side`, `floor`, `count`); `forbidden` what
    must not be there (`text`, `else`, `hat`, `shape:cube`, `color:red`, `pattern:striped`). A caption that does not
    state a subject's attributes leaves them to whoever draws it.
    """

    text: str
    style: Style
    stated: frozenset[str]
    forbidden: tuple[str, ...] = ()


def caption(
    scene: Scene, seed: int, index: int, *, split: Split = "train", style: Style | None = None, full: bool | None = None
) -> Caption:
    """A caption of the scene; the same seed, index and split always give the same one.

    Without a `style` one is chosen that suits the scene. `full` tells every attribute of every subject; without it
    seventeen captions in twenty do (`layout` and `json` always). Raises `InvalidRequest` for a style that does not suit.
    """
    rng = random.Random(f"caption/{seed}/{index}/{split}/{style}")
    suitable = styles_for(scene)
    if style is None:
        weights = {"short": 0.46, "prose": 0.2, "layout": 0.2, "negation": 0.08, "json": 0.06}
        style = rng.choices(suitable, [weights[each] for each in suitable])[0]
    elif style not in suitable:
        raise InvalidRequest(f"style is {style!r}; expected one of {', '.join(suitable)} for this scene", field="style")
    voice = Voice(rng, split)
    whole = full if full is not None else rng.random() < 0.85 and len(scene.subjects) <= _FULL_SUBJECTS
    if style == "json":
        return _compact(scene, rng)
    if style == "negation":
        return _negation(scene, voice)
    if style == "prose":
        text = _prose(scene, voice, whole)
    else:
        text = _short(scene, voice, whole or style == "layout", style == "layout")
    return Caption(text, style, frozenset(voice.stated))


def styles_for(scene: Scene) -> tuple[Style, ...]:
    """The styles in which a scene can be told."""
    units = arrange(scene)
    found: list[Style] = ["short"]
    found += ["prose"] if len(scene.subjects) <= _PROSE_SUBJECTS else []
    found += ["json"] if len(scene.subjects) <= _JSON_SUBJECTS else []
    told = sides(scene)
    places = [told[unit[0]] for unit in units.units]
    if units.kind in {"single", "row"} and len(set(places)) == len(places):
        found.append("layout")
    if 1 <= len(scene.subjects) <= 3 and units.kind in {"single", "row"} and scene.lettering is None:
        found.append("negation")
    return tuple(found)


def _compact(scene: Scene, rng: random.Random) -> Caption:
    """The structured prompt without most of what repeats the descriptions or is as usual, as JSON text."""
    data = {
        name: value for name, value in structured_prompt(scene).items() if name not in _REDUNDANT or rng.random() < 0.1
    }
    stated = _everything(scene)
    terse = rng.random() < 0.75
    for subject in data.get("subjects", ()):
        for name in ("type", "colors") if terse else ():
            del subject[name]
    usual = scene.camera.height == "eye level" and scene.camera.distance == "medium"
    if usual and rng.random() < 0.7:
        del data["camera"]
        stated -= {"camera.height", "camera.distance"}
    return Caption(json.dumps(data, ensure_ascii=False), "json", frozenset(stated))


def _everything(scene: Scene) -> set[str]:
    stated = {"floor", "light.side", "light.height", "light.warmth", "light.spot", "camera.height", "camera.distance"}
    for index, subject in enumerate(scene.subjects):
        names = p.THING_ATTRIBUTES if isinstance(subject, Thing) else p.CHARACTER_ATTRIBUTES
        stated.update(f"subjects[{index}].{name}" for name in names)
    if scene.lettering is not None:
        stated.update(f"lettering.{name}" for name in ("lines", "font", "size", "color", "place"))
    return stated


# Subjects -------------------------------------------------------------------------------------------------------------


Tell = Callable[[int], str]
"""Names the subject of an index, with its article."""


def describing(scene: Scene, voice: Voice, full: bool) -> Tell:
    """Names subjects by their attributes."""
    return lambda index: p.subject_phrase(scene.subjects[index], index, voice, full)


def unit_phrase(unit: tuple[int, ...], voice: Voice, tell: Tell) -> str:
    """One subject, or one on top of another, with articles."""
    if len(unit) == 1:
        return tell(unit[0])
    base, upper = tell(unit[0]), tell(unit[1])
    voice.stated.add("relation")
    return voice.template(RELATIONS, "stack").format(a=upper, b=base)


def _twins(scene: Scene, voice: Voice) -> str | None:
    """`three small red cubes in a row`, where that is what there is."""
    first = scene.subjects[0]
    same = [s for s in scene.subjects if isinstance(s, Thing) and isinstance(first, Thing) and _alike(s, first)]
    if not isinstance(first, Thing) or len(same) != 3 or len(scene.subjects) != 3:
        return None
    voice.stated.update(f"subjects[{index}].{name}" for index in range(3) for name in p.THING_ATTRIBUTES)
    return voice.template(RELATIONS, "twins").format(things=p.things_noun(first, voice))


def _alike(a: Thing, b: Thing) -> bool:
    names = ("shape", "color", "size", "material", "pattern", "second")
    return all(getattr(a, name) == getattr(b, name) for name in names)


def subjects_phrase(scene: Scene, voice: Voice, full: bool, layout: bool = False) -> str | None:
    """All subjects and how they stand to one another; None where there are none."""
    if not scene.subjects:
        return None
    twins = None if layout else _twins(scene, voice)
    return twins if twins is not None else placed_phrase(scene, voice, describing(scene, voice, full), layout)


def placed_phrase(
    scene: Scene, voice: Voice, tell: Tell, layout: bool = False, listed: Callable[[Sequence[str]], str] = joined
) -> str:
    """How subjects, each named by `tell`, stand to one another; `listed` makes one phrase of several names."""
    arrangement = arrange(scene)
    said = [unit_phrase(unit, voice, tell) for unit in arrangement.units]
    if arrangement.kind != "loose":
        voice.stated.add("relation")
    if layout:
        return _by_side(scene, said, [unit[0] for unit in arrangement.units], voice)
    if arrangement.kind == "single":
        place = sides(scene)[arrangement.units[0][0]]
        return said[0] if place == "middle" else _by_side(scene, said, [arrangement.units[0][0]], voice)
    if arrangement.kind == "depth":
        return voice.template(RELATIONS, "depth").format(a=said[0], b=said[1])
    if arrangement.kind == "rows":
        back, front = listed(said[: arrangement.behind]), listed(said[arrangement.behind :])
        return voice.template(RELATIONS, "rows").format(back=back, front=front)
    if arrangement.kind == "row" and len(said) == 2:
        return voice.template(RELATIONS, "pair").format(a=said[0], b=said[1])
    if arrangement.kind == "row" and len(said) == 3:
        return voice.template(RELATIONS, "three").format(a=said[0], b=said[1], c=said[2])
    if arrangement.kind == "row":
        return voice.template(RELATIONS, "row").format(list=listed(said))
    return listed(said)


def is_placed(phrase: str) -> bool:
    """Whether a phrase begins with a place, so that `a picture of` cannot stand before it nor `on a floor` right after."""
    return phrase.startswith(_PLACED) or ";" in phrase


def _by_side(scene: Scene, said: Sequence[str], owners: Sequence[int], voice: Voice) -> str:
    """`on the left ..., in the middle ..., on the right ...`."""
    told = sides(scene)
    voice.stated.add("sides")
    if len(said) == 3:
        return voice.template(RELATIONS, "columns").format(a=said[0], b=said[1], c=said[2])
    parts = []
    for text, owner in zip(said, owners, strict=True):
        side = told[owner]
        parts.append(voice.template(RELATIONS, "middle" if side == "middle" else "side").format(a=text, side=side))
    return ", ".join(parts)


# Clauses --------------------------------------------------------------------------------------------------------------


def light_clause(scene: Scene, voice: Voice, name: str) -> str:
    """Where the light comes from, by the template `light` or `light_sentence`."""
    template = voice.template(SURROUNDINGS, name)
    noun = p.light_noun(scene.light, voice)
    return template.format(light=noun, by="" if noun == "light" else f" by {noun}", side=p.SIDE_WORDS[scene.light.side])


def spot_clause(scene: Scene, voice: Voice) -> str | None:
    """The pool of light, if there is one."""
    spot = scene.light.spot
    if spot == "none":
        return None
    voice.stated.add("light.spot")
    return voice.template(SURROUNDINGS, "spot_middle" if spot == "middle" else "spot_side").format(side=spot)


def lettering_clause(text: Lettering, voice: Voice) -> str:
    """What is printed where, and perhaps how."""
    template = voice.template(LETTERING, text.place)
    voice.stated.update(("lettering.lines", "lettering.place"))
    word = voice.pick(("word", "text")) if len(text.lines) == 1 else voice.pick(("words", "text"))
    style = p.letters_style(text, voice) if "{style}" in template else ""
    sign = p.with_article(f"{text.board} sign") if text.board is not None else ""
    return template.format(word=word, text=p.quoted(text, voice.template(LETTERING, "two")), style=style, sign=sign)


def _camera_clauses(scene: Scene, voice: Voice, height_share: float, distance_share: float) -> list[str]:
    terms = p.camera_terms(scene.camera, voice, height_share, distance_share)
    return [voice.template(SURROUNDINGS, term) for term in terms]


def _with_floor(scene: Scene, subjects: str | None, voice: Voice) -> str:
    floor = p.floor_noun(scene.floor)
    voice.stated.add("floor")
    if subjects is None:
        return voice.template(SURROUNDINGS, "floor_alone").format(floor=floor)
    placed = is_placed(subjects)
    if voice.chance(0.15):
        name = "floor_first_placed" if placed else "floor_first"
        return voice.template(SURROUNDINGS, name).format(floor=floor, s=subjects)
    glue = ", " if placed else " "
    return f"{subjects}{glue}{voice.template(SURROUNDINGS, 'floor').format(floor=floor)}"


def _short(scene: Scene, voice: Voice, full: bool, layout: bool) -> str:
    """One sentence: subjects and floor first, then light, camera and lettering, mostly in this order."""
    subjects = subjects_phrase(scene, voice, full, layout)
    head = _with_floor(scene, subjects, voice) if subjects is None or voice.chance(0.93) else subjects
    tail = []
    if voice.chance(0.93):
        tail.append(light_clause(scene, voice, "light"))
    spot = spot_clause(scene, voice)
    if spot is not None:
        tail.append(spot)
    tail += _camera_clauses(scene, voice, 0.12, 0.06)
    if scene.lettering is not None:
        tail.append(lettering_clause(scene.lettering, voice))
    elif voice.chance(0.06):
        tail.append(voice.template(NEGATIONS, "text"))
    if voice.chance(0.25):
        voice.rng.shuffle(tail)
    return ", ".join((head, *tail))


def _opening(scene: Scene, voice: Voice, full: bool) -> list[str]:
    """The first sentences: subjects, then the floor."""
    subjects = subjects_phrase(scene, voice, full)
    if subjects is None:
        return [f"{_with_floor(scene, None, voice)}."]
    name = "opening_placed" if is_placed(subjects) else "opening"
    floor = voice.template(SURROUNDINGS, "floor_sentence")
    voice.stated.add("floor")
    return [
        voice.template(SENTENCES, name).format(s=subjects),
        floor.format(floor=p.floor_noun(scene.floor), surface=p.floor_adjective(scene.floor)),
    ]


def _camera_sentence(clause: str, voice: Voice) -> str:
    if clause.startswith("seen"):
        return voice.template(SENTENCES, "seen").format(c=clause)
    if clause.startswith(("a ", "an ")):
        return voice.template(SENTENCES, "shot").format(c=clause)
    return f"{clause}."


def _prose(scene: Scene, voice: Voice, full: bool) -> str:
    """Several sentences."""
    first, *rest = _opening(scene, voice, full)
    rest.append(light_clause(scene, voice, "light_sentence"))
    spot = spot_clause(scene, voice)
    if spot is not None:
        rest.append(voice.template(SENTENCES, "spot").format(l=spot))
    rest += [_camera_sentence(clause, voice) for clause in _camera_clauses(scene, voice, 0.5, 0.3)]
    if scene.lettering is not None:
        rest.append(voice.template(SENTENCES, "text").format(t=lettering_clause(scene.lettering, voice)))
    elif voice.chance(0.25):
        rest.append(f"{voice.template(NEGATIONS, 'text')}.")
    if voice.chance(0.2):
        voice.rng.shuffle(rest)
    return " ".join((first, *rest))


# Negations ------------------------------------------------------------------------------------------------------------


def _true_negations(scene: Scene, loose: bool) -> list[tuple[str, str]]:
    """(what is forbidden, template name) of all that can truly be denied; shapes and colours only if left open."""
    things = [each for each in scene.subjects if isinstance(each, Thing)]
    found = [("text", "text"), ("else", "else")]
    who = [each for each in scene.subjects if isinstance(each, Character)]
    if who and all(each.hat == "none" for each in who):
        found += [("hat", "hat")] * 3
    if loose:
        shown = {each.shape for each in things}
        colors = {v.nearest_name(v.hex_of(c)) for each in things for c in (each.color, each.second) if c is not None}
        colors |= {v.nearest_name(each) for each in scene.floor.hexes} | {scene.floor.color, scene.floor.second or ""}
        patterns = {each.pattern for each in things} | {scene.floor.kind}
        found = [(f"shape:{shape}", "shape") for shape in v.SHAPES if shape not in shown]
        found += [(f"color:{color}", "color") for color in v.COLORS if color not in colors]
        found += [(f"pattern:{each}", "pattern") for each in v.PATTERNS[1:] if each not in patterns] * 2
    return found


def _negation(scene: Scene, voice: Voice) -> Caption:
    """A caption that says what is not there: beside a full description, or instead of one (`three objects, no cube`)."""
    loose = all(isinstance(each, Thing) for each in scene.subjects) and voice.chance(0.6)
    choices = _true_negations(scene, loose)
    chosen = dict(voice.rng.sample(choices, voice.rng.choice((1, 2)) if len(choices) > 1 else 1))
    if loose:
        count = len(scene.subjects)
        voice.stated.add("count")
        words = p.with_article("object") if count == 1 else f"{p.NUMBERS[count]} objects"
        name = "some_one" if count == 1 else "some"
        head = _with_floor(scene, voice.template(NEGATIONS, name).format(count=words), voice)
    else:
        head = _with_floor(scene, subjects_phrase(scene, voice, True), voice)
    said = []
    for what, name in chosen.items():
        value = what.partition(":")[2]
        fields = {"shape": value, "color": value, "pattern": p.PATTERN_NOUNS.get(value, "")}
        said.append(voice.template(NEGATIONS, name).format(**fields))
    tail = [*said, *_camera_clauses(scene, voice, 0.1, 0.05)]
    if voice.chance(0.6):
        tail.append(light_clause(scene, voice, "light"))
    spot = spot_clause(scene, voice)
    if spot is not None:
        tail.append(spot)
    return Caption(", ".join((head, *tail)), "negation", frozenset(voice.stated), tuple(sorted(chosen)))
