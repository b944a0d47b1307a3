"""Tasks with references: pictures to draw from, an instruction that names them `image 1`, `image 2`, ..., the target.

A reference gives one thing: a subject, a floor, a light, colours, lettering, a depth or an edge map to follow. Where
several give subjects, swapping two of them swaps their roles: the same instruction, another right picture.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal, get_args

from licht.core.errors import InvalidRequest
from licht.world import draw
from licht.world import phrases as p
from licht.world import vocabulary as v
from licht.world.arrange import arrange
from licht.world.captions import Tell, describing, is_placed, placed_phrase
from licht.world.draw import Dice, Pairs
from licht.world.layout import floor_contrast, framed, is_clear, text_fits
from licht.world.phrases import Voice
from licht.world.pictures import DepthMap, EdgeMap, Palette, Photo, Picture
from licht.world.sample import (
    EXTENTS,
    Kind,
    at,
    one_behind_another,
    sample_scene,
    side_by_side,
    stacked,
    things,
    two_rows,
)
from licht.world.scene import Camera, Character, Floor, Lettering, Light, Scene, Subject, Thing
from licht.world.templates import SURROUNDINGS, TASKS
from licht.world.words import Split, sample_word

TaskKind = Literal[
    "subject", "pick", "subjects", "many", "floor", "lighting", "palette", "lettering", "depth", "edges", "mixed"
]
TASK_KINDS: Final[tuple[TaskKind, ...]] = get_args(TaskKind)
_REFERRED: Final = re.compile(r"the (?P<noun>\w+) (?P<glue>.*\S) image (?P<number>\d+)(?P<tail>.*)")
Role = Literal["subject", "background", "lighting", "palette", "style", "depth", "edges"]

PHRASINGS: Final = 4
_ATTEMPTS: Final = 400
_NEUTRAL_LIGHT: Final = Light("left", "high", "neutral")


@dataclass(frozen=True, slots=True)
class Reference:
    """A picture and what it is for."""

    role: Role
    picture: Picture


@dataclass(frozen=True)
class Task:
    """References in order, instructions that name them, and the scene to draw.

    `sources[i]` is the number (from 0) of the reference that gives subject i of the target, or None.
    """

    kind: TaskKind
    references: tuple[Reference, ...]
    instructions: tuple[str, ...]
    target: Scene
    sources: tuple[int | None, ...]

    def swapped(self, first: int = 0, second: int = 1) -> "Task":
        """The task with two subject references exchanged: same instructions, subjects in each other's place.

        Raises `InvalidRequest` where either does not give a subject, or where the result would not be clear.
        """
        after = _swap(self, first, second)
        if after is None:
            raise InvalidRequest(
                f"references {first + 1} and {second + 1} of this task cannot be swapped", field="first"
            )
        return after


def _swap(task: Task, first: int, second: int) -> Task | None:
    if not {first, second} <= {each for each in task.sources if each is not None} or first == second:
        return None
    a, b = task.sources.index(first), task.sources.index(second)
    one, other = task.target.subjects[a], task.target.subjects[b]
    subjects, references = list(task.target.subjects), list(task.references)
    subjects[a], subjects[b] = _in_place_of(other, one), _in_place_of(one, other)
    references[first], references[second] = references[second], references[first]
    try:
        target = replace(task.target, subjects=tuple(subjects))
    except InvalidRequest:  # a support has become something that cannot carry
        return None
    if not is_clear(target):
        return None
    return replace(task, references=tuple(references), target=target)


def _in_place_of(subject: Subject, old: Subject) -> Subject:
    """The subject where `old` was. Characters cannot stand on things; such a scene is refused by its maker."""
    on = old.on if isinstance(old, Thing) else None
    if isinstance(subject, Thing):
        return replace(subject, x=old.x, z=old.z, on=on)
    return replace(subject, x=old.x, z=old.z)


def sample_task(
    kind: TaskKind, seed: int, index: int, *, split: Split = "train", pairs: Pairs = "seen", aspect: float = 1.0
) -> Task:
    """A random task of a kind with up to `PHRASINGS` different instructions; the same arguments give the same one.

    Tasks of the kind "subjects" can have their first two references swapped. Raises `InvalidRequest` for an unknown
    kind.
    """
    if kind not in _MAKERS:
        raise InvalidRequest(f"kind is {kind!r}; expected one of {', '.join(TASK_KINDS)}", field="kind")
    dice = Dice.of(split, pairs, "task", kind, seed, index, round(aspect, 4))
    for _ in range(_ATTEMPTS):
        draft = _MAKERS[kind](dice, aspect)
        if draft is None or not is_clear(draft.target):
            continue
        texts = [draft.say(Voice(dice.rng, split)) for _ in range(2 * PHRASINGS)]
        distinct = tuple(dict.fromkeys(texts))[:PHRASINGS]
        task = Task(kind, draft.references, distinct, draft.target, draft.sources)
        if kind != "subjects" or _swap(task, 0, 1) is not None:
            return task
    raise AssertionError(f"no clear task of kind {kind} for seed {seed}, index {index} in {_ATTEMPTS} attempts")


@dataclass(frozen=True)
class _Draft:
    references: tuple[Reference, ...]
    target: Scene
    sources: tuple[int | None, ...]
    say: Callable[[Voice], str]


# References -----------------------------------------------------------------------------------------------------------


def subject_reference(dice: Dice, subject: Subject) -> Reference:
    """The subject alone on a plain floor that it stands out from."""
    while True:
        floor = draw.floor(dice, 1.0)
        extent = 1.5 if isinstance(subject, Character) else EXTENTS[1]
        side: v.LightSide = dice.pick(("left", "right"))
        alone = replace(subject, on=None) if isinstance(subject, Thing) else subject
        camera = Camera("eye level", "medium", extent)
        scene = Scene(floor, (at(alone, 0.0, 0.0),), Light(side, "high", "neutral"), camera)
        colors = [c for c in (_main_color(subject),) if floor_contrast(floor.hexes, v.hex_of(c)) >= draw.CONTRAST]
        fitted = framed(scene)
        if colors and fitted is not None:
            return Reference("subject", Photo(fitted))


def _main_color(subject: Subject) -> str:
    return subject.color if isinstance(subject, Thing) else subject.body_color


def floor_reference(floor: Floor) -> Reference:
    """The floor, empty."""
    return Reference("background", Photo(Scene(floor, (), _NEUTRAL_LIGHT, Camera("high", "medium", 1.6))))


def light_reference(light: Light) -> Reference:
    """The light on a white ball on a gray floor."""
    scene = Scene(Floor("plain", "gray"), (Thing("sphere", "white"),), light, Camera("eye level", "medium", 1.4))
    return Reference("lighting", Photo(scene))


def lettering_reference(dice: Dice, text: Lettering, floor: Floor) -> Reference | None:
    """Another word in the same font, size and colour over an empty floor of the same tone."""
    word = sample_word(dice.rng, dice.split, 5)
    shown = replace(text, lines=(word,), place="top", board=None)
    fits = text_fits(shown, 1.0) and word not in text.lines
    return Reference("style", Photo(Scene(floor, (), _NEUTRAL_LIGHT, lettering=shown))) if fits else None


# Words ----------------------------------------------------------------------------------------------------------------


def _noun(subjects: Sequence[Subject]) -> str:
    kinds = {type(subject) for subject in subjects}
    return "subject" if len(kinds) > 1 else "character" if kinds == {Character} else "object"


def _naming(scene: Scene, sources: Sequence[int | None], voice: Voice) -> Tell:
    """Names subjects by their reference, or by their attributes where they have none."""
    template = voice.template(TASKS, "subject")
    given = [subject for subject, source in zip(scene.subjects, sources, strict=True) if source is not None]
    noun = _noun(given)
    describe = describing(scene, voice, True)

    def tell(index: int) -> str:
        source = sources[index]
        return describe(index) if source is None else f"{template.format(noun=noun, n=source + 1)}"

    return tell


def _gathered(names: Sequence[str]) -> str:
    """`the objects of image 1, image 2 and image 3` for names that differ in the number alone."""
    found = [_REFERRED.fullmatch(name) for name in names]
    rests = {(each["noun"], each["glue"], each["tail"]) for each in found if each}
    if len(names) < 2 or not all(found) or len(rests) > 1:
        return p.joined(names)
    noun, glue, tail = rests.pop()
    images = p.joined([f"image {each['number']}" for each in found if each])
    return f"the {noun}s {glue} {images}{tail.replace(' shows', ' show')}"


def _sentence(voice: Voice, subjects: str, clauses: Sequence[str | None]) -> str:
    """Subjects, perhaps after a verb, then what else is asked for."""
    placed = is_placed(subjects)
    head = subjects if placed or voice.chance(0.45) else f"{voice.template(TASKS, 'verb')} {subjects}"
    first, *rest = [clause for clause in clauses if clause is not None] or [""]
    glue = ", " if placed or not first.startswith("on ") else " "
    return ", ".join((f"{head}{glue}{first}" if first else head, *rest))


def _on(floor: Floor) -> str:
    return f"on {p.floor_noun(floor)}"


def _light_words(scene: Scene, voice: Voice) -> str | None:
    """The light, mostly; what is unusual about it always."""
    if scene.light.warmth == "neutral" and not voice.chance(0.7):
        return None
    template = voice.template(SURROUNDINGS, "light")
    noun = p.light_noun(scene.light, voice)
    by = "" if noun == "light" else f" by {noun}"
    return template.format(light=noun, by=by, side=p.SIDE_WORDS[scene.light.side])


def _camera_words(scene: Scene, voice: Voice) -> list[str]:
    return [voice.template(SURROUNDINGS, term) for term in p.camera_terms(scene.camera, voice, 0.1, 0.05)]


def _plain_say(target: Scene, sources: Sequence[int | None]) -> Callable[[Voice], str]:
    def say(voice: Voice) -> str:
        listed = _gathered if len(sources) > 4 or voice.chance(0.4) else p.joined
        subjects = placed_phrase(target, voice, _naming(target, sources, voice), listed=listed)
        clauses = [_on(target.floor), _light_words(target, voice), *_camera_words(target, voice)]
        return _sentence(voice, subjects, clauses)

    return say


# Kinds ----------------------------------------------------------------------------------------------------------------


def _target(
    dice: Dice, floor: Floor, subjects: Sequence[Subject], aspect: float, light: Light | None = None
) -> Scene | None:
    camera = draw.camera(dice, EXTENTS[len(subjects)] + 0.15, calm=0.75)
    if len(subjects) > 3:
        camera = Camera("high", "medium", EXTENTS[len(subjects)])
    return framed(Scene(floor, tuple(subjects), light or draw.light(dice, 0.0), camera, None, aspect))


def _drawn(dice: Dice, floor: Floor, count: int, people: float = 0.25) -> list[Subject]:
    """Different things, some of them replaced by characters."""
    found: list[Subject] = list(things(dice, floor, count))
    if dice.pairs == "unseen":
        return found
    return [draw.character(dice, floor) if dice.chance(people) else each for each in found]


def _subject(dice: Dice, aspect: float) -> _Draft | None:
    """One subject somewhere else, alone or beside a described thing."""
    floor = draw.floor(dice)
    first = _drawn(dice, floor, 1)[0]
    reference = subject_reference(dice, first)
    if dice.chance(0.6):
        subjects: tuple[Subject, ...] = (at(first, dice.around(0.0, 0.2), dice.around(0.0, 0.15)),)
        sources: tuple[int | None, ...] = (0,)
    else:
        pair: list[tuple[Subject, int | None]] = [(first, 0), (things(dice, floor, 1)[0], None)]
        dice.rng.shuffle(pair)
        subjects, sources = side_by_side(dice, [each for each, _ in pair]), tuple(source for _, source in pair)
    target = _target(dice, floor, subjects, aspect)
    return _Draft((reference,), target, sources, _plain_say(target, sources)) if target is not None else None


def _pick(dice: Dice, aspect: float) -> _Draft | None:
    """One subject of two to four references, by its number; the others are shown and not asked for."""
    floor = draw.floor(dice)
    drawn = _drawn(dice, floor, dice.weighted(((2, 0.5), (3, 0.3), (4, 0.2))))
    chosen = dice.rng.randrange(len(drawn))
    placed = at(drawn[chosen], dice.around(0.0, 0.2), dice.around(0.0, 0.15))
    target = _target(dice, floor, (placed,), aspect)
    if target is None:
        return None
    references = tuple(subject_reference(dice, each) for each in drawn)
    return _Draft(references, target, (chosen,), _plain_say(target, (chosen,)))


def _subjects(dice: Dice, aspect: float) -> _Draft | None:
    """Two to four subjects together."""
    floor = draw.floor(dice)
    count = dice.weighted(((2, 0.5), (3, 0.3), (4, 0.2)))
    drawn = _drawn(dice, floor, count)
    order = list(range(count))
    dice.rng.shuffle(order)
    placed = _together(dice, [drawn[each] for each in order])
    target = _target(dice, floor, placed, aspect) if placed is not None else None
    if target is None:
        return None
    sources = tuple(order)
    references = tuple(subject_reference(dice, each) for each in drawn)
    return _Draft(references, target, sources, _plain_say(target, sources))


def _together(dice: Dice, subjects: Sequence[Subject]) -> Sequence[Subject] | None:
    """Subjects side by side, one behind another, one on another, or in two rows."""
    if len(subjects) == 4:
        return two_rows(dice, subjects)
    how = dice.weighted((("side", 0.6), ("depth", 0.25), ("stack", 0.15)))
    if len(subjects) == 3 or how == "side":
        return side_by_side(dice, subjects, 0.6)
    if how == "depth":
        return one_behind_another(dice, subjects[0], subjects[1])
    lower, upper = subjects
    if not isinstance(lower, Thing) or not isinstance(upper, Thing) or lower.shape not in {"cube", "cylinder"}:
        return None
    return stacked(dice, upper, replace(lower, x=0.0, z=0.0), 0)


def _many(dice: Dice, aspect: float) -> _Draft | None:
    """Five to ten subjects in two rows."""
    floor = draw.floor(dice)
    count = dice.rng.randint(5, 10)
    drawn: list[Subject] = [replace(each, size="small") if count > 6 else each for each in things(dice, floor, count)]
    order = list(range(count))
    if dice.chance(0.5):
        dice.rng.shuffle(order)
    target = _target(dice, floor, two_rows(dice, [drawn[each] for each in order]), aspect)
    if target is None:
        return None
    sources = tuple(order)
    references = tuple(subject_reference(dice, each) for each in drawn)
    return _Draft(references, target, sources, _plain_say(target, sources))


def _floor(dice: Dice, aspect: float) -> _Draft | None:
    """A subject from one picture (or described) on the floor of another."""
    floor = draw.floor(dice, 0.5)
    subject = _drawn(dice, floor, 1)[0]
    given = dice.chance(0.6)
    target = _target(dice, floor, (at(subject, dice.around(0.0, 0.2), 0.0),), aspect)
    if target is None:
        return None
    references = (subject_reference(dice, subject), floor_reference(floor)) if given else (floor_reference(floor),)
    sources: tuple[int | None, ...] = (0,) if given else (None,)

    def say(voice: Voice) -> str:
        subjects = placed_phrase(target, voice, _naming(target, sources, voice))
        on = voice.template(TASKS, "floor").format(n=len(references))
        return _sentence(voice, subjects, [on, _light_words(target, voice), *_camera_words(target, voice)])

    return _Draft(references, target, sources, say)


def _lighting(dice: Dice, aspect: float) -> _Draft | None:
    """A subject from one picture (or described) in the light of another."""
    floor = draw.floor(dice)
    subject = _drawn(dice, floor, 1)[0]
    light = draw.light(dice, 0.0)
    given = dice.chance(0.6)
    target = _target(dice, floor, (at(subject, dice.around(0.0, 0.2), 0.0),), aspect, light)
    if target is None:
        return None
    references = (subject_reference(dice, subject), light_reference(light)) if given else (light_reference(light),)
    sources: tuple[int | None, ...] = (0,) if given else (None,)

    def say(voice: Voice) -> str:
        subjects = placed_phrase(target, voice, _naming(target, sources, voice))
        lit = voice.template(TASKS, "light").format(n=len(references))
        return _sentence(voice, subjects, [_on(floor), lit, *_camera_words(target, voice)])

    return _Draft(references, target, sources, say)


def _palette(dice: Dice, aspect: float) -> _Draft | None:
    """One to four described things whose colours a palette gives, from left to right."""
    floor = draw.floor(dice, 0.9)
    count = dice.weighted(((1, 0.3), (2, 0.35), (3, 0.25), (4, 0.1)))
    some = [each for each in things(dice, floor, count, hex_share=0.35, plain=1.0) if each.material != "metal"]
    if len(some) < count:
        return None
    target = _target(dice, floor, side_by_side(dice, some, 0.6), aspect)
    if target is None or arrange(target).kind not in {"single", "row"}:
        return None
    row = [unit[0] for unit in arrange(target).units]
    colors = tuple(thing.color for index in row if isinstance(thing := target.subjects[index], Thing))

    def say(voice: Voice) -> str:
        def tell(index: int) -> str:
            thing = target.subjects[index]
            return (
                p.with_article(p.thing_noun(thing, voice, ("size", "material", "shape")))
                if isinstance(thing, Thing)
                else ""
            )

        subjects = placed_phrase(target, voice, tell)
        colored = voice.template(TASKS, "color" if count == 1 else "colors").format(n=1)
        return _sentence(
            voice, subjects, [_on(floor), colored, _light_words(target, voice), *_camera_words(target, voice)]
        )

    return _Draft((Reference("palette", Palette(colors)),), target, (None,) * count, say)


def _text_target(dice: Dice, aspect: float, subjects: Sequence[Subject], floor: Floor) -> Scene | None:
    text = draw.lettering(dice, floor, aspect, 1, dice.pick(("top", "bottom")))
    scene = (
        _target(dice, floor, subjects, aspect)
        if subjects
        else Scene(floor, (), draw.light(dice, 0.0), Camera(), None, aspect)
    )
    return framed(replace(scene, lettering=text)) if scene is not None else None


def _lettering_words(text: Lettering, voice: Voice, number: int) -> str:
    said = voice.template(TASKS, "over").format(text=f'"{text.lines[0]}"', word="word", place=text.place)
    return f"{said} {voice.template(TASKS, 'lettering').format(n=number)}"


def _lettering(dice: Dice, aspect: float) -> _Draft | None:
    """A word in the lettering of another picture."""
    floor = draw.floor(dice, 1.0)
    subjects = [at(each, 0.0, 0.0) for each in things(dice, floor, dice.pick((0, 1)))]
    target = _text_target(dice, aspect, subjects, floor)
    if target is None or target.lettering is None:
        return None
    text = target.lettering
    reference = lettering_reference(dice, text, floor)
    if reference is None:
        return None
    sources = (None,) * len(subjects)

    def say(voice: Voice) -> str:
        head = (
            placed_phrase(target, voice, describing(target, voice, True))
            if subjects
            else f"an empty picture of {p.floor_noun(floor)}"
        )
        clauses = [_lettering_words(text, voice, 1), _light_words(target, voice), *_camera_words(target, voice)]
        if subjects:
            return _sentence(voice, head, [_on(floor), *clauses])
        return ", ".join((head, *(clause for clause in clauses if clause is not None)))

    return _Draft((reference,), target, sources, say)


def _mapped(dice: Dice, aspect: float, edges: bool) -> _Draft | None:
    """A described scene that follows the depth or the edges of another of the same geometry."""
    kind: Kind = dice.pick(("one", "two", "relation", "row", "layout"))
    target = sample_scene(kind, dice.rng.randrange(1 << 30), 0, split=dice.split, pairs=dice.pairs, aspect=aspect)
    reference = Reference("edges", EdgeMap(target)) if edges else Reference("depth", DepthMap(target))
    name = "edges" if edges else "depth"

    def say(voice: Voice) -> str:
        text = placed_phrase(target, voice, describing(target, voice, True))
        glue = ", " if is_placed(text) else " "
        text = ", ".join(each for each in (f"{text}{glue}{_on(target.floor)}", _light_words(target, voice)) if each)
        return voice.template(TASKS, name).format(n=1, s=text)

    return _Draft((reference,), target, (None,) * len(target.subjects), say)


def _depth(dice: Dice, aspect: float) -> _Draft | None:
    return _mapped(dice, aspect, False)


def _edges(dice: Dice, aspect: float) -> _Draft | None:
    return _mapped(dice, aspect, True)


def _mixed(dice: Dice, aspect: float) -> _Draft | None:
    """One to three subjects, and a floor, a light or a lettering from other pictures: two to six references."""
    floor = draw.floor(dice, 0.7)
    with_floor, with_text = dice.chance(0.65), dice.chance(0.3) and floor.kind == "plain"
    with_light = dice.chance(0.65) or not with_floor
    count = dice.pick((1, 2, 3))
    drawn = _drawn(dice, floor, count)
    placed = side_by_side(dice, drawn, 0.6)
    light = draw.light(dice, 0.0)
    target = _target(dice, floor, placed, aspect, light)
    text = draw.lettering(dice, floor, aspect, 1, "top") if with_text else None
    target = framed(replace(target, lettering=text)) if target is not None else None
    if target is None:
        return None
    references = [subject_reference(dice, each) for each in drawn]
    numbers: dict[str, int] = {}
    extra = [("floor", floor_reference(floor))] if with_floor else []
    extra += [("light", light_reference(light))] if with_light else []
    if text is not None:
        letters = lettering_reference(dice, text, floor)
        if letters is None:
            return None
        extra.append(("lettering", letters))
    dice.rng.shuffle(extra)
    for name, reference in extra:
        references.append(reference)
        numbers[name] = len(references)
    return _Draft(tuple(references), target, tuple(range(count)), _mixed_say(target, numbers))


def _mixed_say(target: Scene, numbers: Mapping[str, int]) -> Callable[[Voice], str]:
    sources = tuple(range(len(target.subjects)))

    def say(voice: Voice) -> str:
        subjects = placed_phrase(target, voice, _naming(target, sources, voice))
        on = voice.template(TASKS, "floor").format(n=numbers["floor"]) if "floor" in numbers else _on(target.floor)
        lit = (
            voice.template(TASKS, "light").format(n=numbers["light"])
            if "light" in numbers
            else _light_words(target, voice)
        )
        text = target.lettering
        written = _lettering_words(text, voice, numbers["lettering"]) if text is not None else None
        return _sentence(voice, subjects, [on, lit, written, *_camera_words(target, voice)])

    return say


_MAKERS: Final[Mapping[TaskKind, Callable[[Dice, float], _Draft | None]]] = MappingProxyType(
    {
        "subject": _subject,
        "pick": _pick,
        "subjects": _subjects,
        "many": _many,
        "floor": _floor,
        "lighting": _lighting,
        "palette": _palette,
        "lettering": _lettering,
        "depth": _depth,
        "edges": _edges,
        "mixed": _mixed,
    }
)
