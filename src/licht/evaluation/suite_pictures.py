"""Text to image: objects, relations, layouts, negations, colours by number; and the same at several step counts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from torch import Tensor

from licht.evaluation import scoring, segmentation
from licht.evaluation.colors import ciede2000
from licht.evaluation.intervals import Row, gap, mean, share, shares
from licht.evaluation.seen import Seen, subject_hex, truth
from licht.evaluation.suites import BOLD, SEED, USUAL, Bench, Draws
from licht.world.captions import Caption, Style, caption, styles_for
from licht.world.draw import Pairs
from licht.world.render import render
from licht.world.sample import Kind, sample_scene
from licht.world.scene import Scene, Thing

STEP_COUNTS: Final = (1, 2, 4, 6, 8, 20, 50)
STEPS_EACH: Final = 100
HEX_CLOSE: Final = 10.0
"""CIEDE2000 up to which the sheet calls a colour given by number a success: the same colour, if not the same shade."""
_PHRASINGS: Final = 20
"""About one in twenty denies things instead of telling what is there."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A held-out scene and how it was put into words."""

    scene: Scene
    told: Caption


Check = Callable[[Seen, Prompt], bool]


def prompts(kind: Kind, count: int, style: Style | None = None, pairs: Pairs = "seen") -> list[Prompt]:
    """Held-out scenes with captions that tell every attribute; scenes that cannot be told in `style` are left out.

    Negations alone may leave open what is there, and only where they are asked for.
    """
    found: list[Prompt] = []
    index = 0
    while len(found) < count:
        scene = sample_scene(kind, SEED, index, split="test", pairs=pairs)
        index += 1
        if style is None or style in styles_for(scene):
            found.append(Prompt(scene, _telling(scene, index, style)))
    return found


def _telling(scene: Scene, index: int, style: Style | None) -> Caption:
    """The first of several captions that says of what kind and colour every subject is."""
    for attempt in range(_PHRASINGS):
        told = caption(scene, SEED + attempt, index, split="test", style=style, full=True)
        if style == "negation" or all(
            set(scoring.NAMED) <= set(scoring.told_attributes(each, told.stated)) for each in range(len(scene.subjects))
        ):
            return told
    raise AssertionError(f"none of {_PHRASINGS} captions of scene {index - 1} tells every kind and colour")


def t2i(bench: Bench) -> None:
    """All rows of text to image."""
    rows = bench.notebook.rows
    one = _row(bench, "one_object", prompts("one", bench.count(BOLD)), _objects)
    two = _row(bench, "two_objects", prompts("two", bench.count(BOLD)), _objects)
    for name, drawn in (("one_object", one), ("two_objects", two)):
        _by_attribute(bench, name, drawn)
    _by_color(bench, two.prompts, two.pictures)
    related = prompts("relation", bench.count(USUAL))
    _row(bench, "relation", related, lambda s, p: scoring.relation_right(s, p.scene, p.told.stated))
    layouts = prompts("layout", bench.count(USUAL), "layout")
    _row(bench, "layout", layouts, lambda s, p: scoring.layout_right(s, p.scene, p.told.stated))
    negated = prompts("negation", bench.count(USUAL), "negation")
    _row(bench, "negation", negated, lambda s, p: scoring.negation_right(s, p.scene, p.told.stated, p.told.forbidden))
    _hex(bench)
    unseen = _row(bench, "unseen_pairs", prompts("one", bench.count(USUAL), pairs="unseen"), _objects)
    alike = [hit for hit, prompt in zip(one.hits, one.prompts, strict=True) if _like_unseen(prompt.scene)]
    rows["unseen_pairs_gap"] = gap(unseen.hits, alike)


def _objects(seen: Seen, prompt: Prompt) -> bool:
    return scoring.objects_right(seen, prompt.scene, prompt.told.stated)


def _like_unseen(scene: Scene) -> bool:
    """Scenes with unseen pairs have plain things that are not metal; only such are compared with them."""
    thing = scene.subjects[0]
    return isinstance(thing, Thing) and thing.pattern == "plain" and thing.material != "metal"


@dataclass(frozen=True, slots=True)
class _Drawn:
    prompts: Sequence[Prompt]
    pictures: Sequence[Tensor]
    seen: Sequence[Seen]
    hits: Sequence[bool]
    true: Sequence[Seen]
    """What the judge sees in the true pictures, where those were looked at."""

    def looks(self) -> dict[str, Sequence[Seen]]:
        """What was seen, by the suffix of the rows that tell of it."""
        return {"": self.seen, "_ceiling": self.true} if self.true else {"": self.seen}


def _row(bench: Bench, name: str, asked: Sequence[Prompt], right: Check, drawer: Draws | None = None) -> _Drawn:
    """Draw, judge and count one row, and beside it its ceiling and the shares of floor and light."""
    pictures = [bench.draw(prompt.told.text, SEED + at, drawer=drawer) for at, prompt in enumerate(asked)]
    seen = bench.look(pictures)
    hits = [right(one, prompt) for one, prompt in zip(seen, asked, strict=True)]
    bench.notebook.rows[name] = share(hits)
    bench.keep(name, pictures, [prompt.told.text for prompt in asked], hits)
    drawn = _Drawn(asked, pictures, seen, hits, [] if drawer is not None else _true(bench, asked))
    if drawer is None:
        bench.notebook.rows[f"{name}_ceiling"] = _share_of(drawn.true, asked, right)
        _floors_and_lights(bench, name, drawn)
    return drawn


def _floors_and_lights(bench: Bench, name: str, drawn: _Drawn) -> None:
    for suffix, looks in drawn.looks().items():
        for what, category, told in (("floor", "floor", "floor"), ("light", "light_side", "light.side")):
            named = [pair for pair in zip(looks, drawn.prompts, strict=True) if told in pair[1].told.stated]
            found = [one.picture[category] == truth(prompt.scene).picture[category] for one, prompt in named]
            bench.notebook.rows[f"{name}_{what}{suffix}"] = share(found)


def _by_attribute(bench: Bench, name: str, drawn: _Drawn) -> None:
    """Of the attributes that were stated of things, the share of each that is right."""
    for suffix, looks in drawn.looks().items():
        found = shares(
            each
            for seen, prompt in zip(looks, drawn.prompts, strict=True)
            for each in scoring.named_attributes_right(seen, prompt.scene, prompt.told.stated)
        )
        bench.notebook.rows.update({f"{name}_{category}{suffix}": row for category, row in found.items()})


def _true(bench: Bench, asked: Sequence[Prompt]) -> list[Seen]:
    """What the judge sees in true renders: what it counts there is the ceiling."""
    return bench.look(list(render([prompt.scene for prompt in asked], 128, 128)))


def _share_of(seen: Sequence[Seen], asked: Sequence[Prompt], right: Check) -> Row:
    return share([right(one, prompt) for one, prompt in zip(seen, asked, strict=True)])


def _by_color(bench: Bench, asked: Sequence[Prompt], pictures: Sequence[Tensor]) -> None:
    """The check that is not learned: regions of both colours, in the right order from left to right."""
    able = [(at, colors) for at, prompt in enumerate(asked) if (colors := segmentation.row_colors(prompt.scene))]
    true = list(render([asked[at].scene for at, _ in able], 128, 128)) if able else []
    drawn = [segmentation.colors_in_order(pictures[at], colors) for at, colors in able]
    ceiling = [segmentation.colors_in_order(one, colors) for one, (_, colors) in zip(true, able, strict=True)]
    bench.notebook.rows["two_objects_by_color"] = share(drawn)
    bench.notebook.rows["two_objects_by_color_ceiling"] = share(ceiling)


def _hex(bench: Bench) -> None:
    """How far colours given by number are from what the judge sees, over the objects that it finds.

    And, without anything learned but where they are, how far they look from those of the true picture. Beside that stands
    how far those look when the light comes from the other side: a picture can hardly be nearer.
    """
    asked = prompts("hex", bench.count(USUAL))
    scenes = [prompt.scene for prompt in asked]
    pictures = [bench.draw(prompt.told.text, SEED + at) for at, prompt in enumerate(asked)]
    true, otherwise = list(render(scenes, 128, 128)), list(render([_lit_otherwise(each) for each in scenes], 128, 128))
    rows = bench.notebook.rows
    for suffix, shown in (("", pictures), ("_ceiling", true)):
        looks = bench.look(shown)
        each = [_distances(seen, scene) for seen, scene in zip(looks, scenes, strict=True)]
        rows[f"hex_ciede2000{suffix}"] = mean([one for some in each for one in some if one is not None])
        rows[f"hex_found{suffix}"] = share([one is not None for some in each for one in some])
        if shown is pictures:
            close = [all(one is not None and one <= HEX_CLOSE for one in some) for some in each]
            bench.keep("hex", pictures, [prompt.told.text for prompt in asked], close)
            by_pixels = zip(pictures, looks, true, scenes, strict=True)
            rows["hex_by_pixels"] = mean([one for some in by_pixels for one in _pixel_distances(*some)])
    right = [truth(scene) for scene in scenes]
    lit = zip(otherwise, right, true, scenes, strict=True)
    rows["hex_by_pixels_ceiling"] = mean([one for some in lit for one in _pixel_distances(*some)])


def _lit_otherwise(scene: Scene) -> Scene:
    return replace(scene, light=replace(scene.light, side="left" if scene.light.side == "right" else "right"))


def _pixel_distances(picture: Tensor, seen: Seen, true: Tensor, scene: Scene) -> list[float]:
    """CIEDE2000 of each plain thing that is seen from what it looks like in the true picture."""
    right = truth(scene)
    things = zip(scene.subjects, scoring.assign(seen, right), right.objects, strict=True)
    return [
        ciede2000(segmentation.shown_color(picture, one.box), segmentation.shown_color(true, asked.box))
        for subject, one, asked in things
        if one is not None and isinstance(subject, Thing) and subject.pattern == "plain"
    ]


def _distances(seen: Seen, scene: Scene) -> list[float | None]:
    """CIEDE2000 of each subject from the object that is most like it, None where there is none."""
    found = zip(scene.subjects, scoring.assign(seen, truth(scene)), strict=True)
    return [None if one is None else ciede2000(subject_hex(subject), one.hex) for subject, one in found]


def steps(bench: Bench) -> None:
    """One and two objects at several step counts, and one ceiling of each for all of them."""
    if bench.at_steps is None:
        return
    count = bench.count(STEPS_EACH)
    asked = {"one_object": prompts("one", count), "two_objects": prompts("two", count)}
    for name, some in asked.items():
        bench.notebook.rows[f"{name}_ceiling"] = _share_of(_true(bench, some), some, _objects)
    for number in STEP_COUNTS:
        drawer = bench.at_steps(number)
        for name, some in asked.items():
            _row(bench, f"{name}_{number}_steps", some, _objects, drawer)
