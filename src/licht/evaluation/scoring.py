"""Whether a picture shows what was asked for: a scene, a caption's commitments, and what a judge has seen."""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Final

from licht.evaluation.ceiling import matched
from licht.evaluation.seen import Seen, SeenObject, subject_attributes, truth, wrong_attributes
from licht.world.arrange import arrange, sides
from licht.world.edits import Edit
from licht.world.scene import Scene

_TOLD: Final[Mapping[str, tuple[str, ...]]] = {
    "shape": ("kind",),
    "color": ("color",),
    "size": ("size",),
    "material": ("material",),
    "pattern": ("pattern", "second"),
    "body": ("kind", "color"),
    "head": ("head",),
    "hat": ("hat", "hat_color"),
    "arms": ("arms",),
    "facing": ("facing",),
}
"""Which categories each attribute commits to that a caption may state."""
_COSTS: Final[Mapping[str, float]] = {"kind": 2.0, "color": 2.0}
_MISSING: Final = 20.0
_MOST_SEEN: Final = 12
_SIDE: Final = 0.34
_SIDE_MARGIN: Final = 0.1
_STEP: Final = 0.02
"""Least distance, as a share of the picture, of what is told apart as left and right or front and back."""
SHOWN: Final = (
    *("kind", "color", "size", "material", "pattern", "second"),
    *("head", "hat", "hat_color", "arms", "facing"),
)
"""What a reference shows of a subject; a task puts it elsewhere and changes nothing of this."""
NAMED: Final = ("kind", "color")
"""What makes a thing the one that is spoken of."""


def told_attributes(index: int, stated: Collection[str]) -> list[str]:
    """The categories of subject `index` to which a caption has committed itself."""
    names = [name for name in _TOLD if f"subjects[{index}].{name}" in stated]
    return [category for name in names for category in _TOLD[name]]


def assign(seen: Seen, right: Seen) -> list[SeenObject | None]:
    """For each object that is right the seen one that is most like it: the cheapest one-to-one assignment.

    The costs are wrong attributes and, to decide between equals, the square of the distance: with the distance itself
    a row of equal things that stands aside could be assigned crosswise at the same cost. Exact, by dynamic programming
    over sets of seen objects.
    """
    found = sorted(seen.objects, key=lambda one: -one.score)[:_MOST_SEEN]
    costs = [[_cost(one, other) for other in found] for one in right.objects]
    best: dict[int, tuple[float, list[SeenObject | None]]] = {0: (0.0, [])}
    for of_one in costs:
        nearer: dict[int, tuple[float, list[SeenObject | None]]] = {}
        for used, (cost, chosen) in best.items():
            choices: list[tuple[int, float, SeenObject | None]] = [(used, cost + _MISSING, None)]
            choices += [
                (used | 1 << number, cost + of_one[number], other)
                for number, other in enumerate(found)
                if not used >> number & 1
            ]
            for key, total, pick in choices:
                if key not in nearer or total < nearer[key][0]:
                    nearer[key] = (total, [*chosen, pick])
        best = nearer
    return min(best.values(), key=lambda each: each[0])[1]


def _cost(right: SeenObject, seen: SeenObject) -> float:
    wrong = wrong_attributes(seen, right.attributes, SHOWN)
    dx, dy = right.center[0] - seen.center[0], right.center[1] - seen.center[1]
    return float(sum(_COSTS.get(name, 1.0) for name in wrong) + dx * dx + dy * dy)


def _each_right(seen: Seen, scene: Scene, names: Sequence[Sequence[str]]) -> bool:
    """Whether there are as many objects as asked, subject `i` right in `names[i]`."""
    right = truth(scene)
    if len(seen.objects) != len(right.objects):
        return False
    return all(
        one is not None and not wrong_attributes(one, asked.attributes, some)
        for one, asked, some in zip(assign(seen, right), right.objects, names, strict=True)
    )


def objects_right(seen: Seen, scene: Scene, stated: Collection[str]) -> bool:
    """Whether there are as many objects as asked, each with every attribute that was stated of it."""
    return _each_right(seen, scene, [told_attributes(index, stated) for index in range(len(scene.subjects))])


def named_right(seen: Seen, scene: Scene, stated: Collection[str]) -> bool:
    """Whether there are as many objects as asked, each of the kind and colour that were stated of it."""
    told = [told_attributes(index, stated) for index in range(len(scene.subjects))]
    return _each_right(seen, scene, [[name for name in names if name in NAMED] for names in told])


def attributes_right(seen: Seen, scene: Scene, stated: Collection[str]) -> list[bool]:
    """Of each attribute that was stated of a subject, whether it is seen in the object that is most like that."""
    return [right for _, right in named_attributes_right(seen, scene, stated)]


def named_attributes_right(seen: Seen, scene: Scene, stated: Collection[str]) -> list[tuple[str, bool]]:
    """The same with the category of each."""
    return _attributes_right(seen, scene, [told_attributes(index, stated) for index in range(len(scene.subjects))])


def _attributes_right(seen: Seen, scene: Scene, names: Sequence[Sequence[str]]) -> list[tuple[str, bool]]:
    """Of the categories `names[i]` that subject `i` has, whether each is seen; of one that is not seen, all are wrong."""
    right, found = truth(scene), list[tuple[str, bool]]()
    for one, asked, some in zip(assign(seen, right), right.objects, names, strict=True):
        had = [name for name in some if name in asked.attributes]
        wrong = had if one is None else wrong_attributes(one, asked.attributes, had)
        found += [(name, name not in wrong) for name in had]
    return found


def relation_right(seen: Seen, scene: Scene, stated: Collection[str]) -> bool:
    """Whether what was asked for, by number, kind and colour, stands as in the scene."""
    return named_right(seen, scene, stated) and places_right(seen, scene)


def places_right(seen: Seen, scene: Scene) -> bool:
    """Whether the objects stand to one another as in the scene: beside, in front of, on top of, in rows."""
    assigned = assign(seen, truth(scene))
    if any(one is None for one in assigned):
        return False
    found = [one for one in assigned if one is not None]
    arrangement = arrange(scene)
    for unit in arrangement.units:
        if len(unit) == 2 and not _stands_on(found[unit[1]], found[unit[0]]):
            return False
    bases = [found[unit[0]] for unit in arrangement.units]
    if arrangement.kind == "depth":
        return bases[0].box[3] > bases[1].box[3] + _STEP
    if arrangement.kind == "rows":
        back, front = bases[: arrangement.behind], bases[arrangement.behind :]
        apart = min(one.box[3] for one in front) > max(one.box[3] for one in back)
        return apart and _from_left(back) and _from_left(front)
    return _from_left(bases) if arrangement.kind == "row" else True


def _from_left(objects: Sequence[SeenObject]) -> bool:
    return all(b.center[0] - a.center[0] > _STEP for a, b in pairwise(objects))


def _stands_on(upper: SeenObject, lower: SeenObject) -> bool:
    left, top, right, bottom = lower.box
    beside = abs(upper.center[0] - lower.center[0]) > 0.6 * (right - left)
    return not beside and upper.center[1] < top + 0.25 * (bottom - top)


def layout_right(seen: Seen, scene: Scene, stated: Collection[str]) -> bool:
    """Whether just the objects of the scene are there, each on its side of the picture, the pool of light on its own."""
    if not _each_right(seen, scene, [NAMED] * len(scene.subjects)):
        return False
    asked = sides(scene)
    for index, one in enumerate(assign(seen, truth(scene))):
        if one is None or not _on_side(2 * one.center[0] - 1, asked[index]):
            return False
    return "light.spot" not in stated or seen.picture["spot"] == scene.light.spot


def _on_side(x: float, side: str) -> bool:
    """`x` runs from -1 (left edge) to 1; close to a border between sides either is accepted."""
    near = _SIDE - _SIDE_MARGIN
    return {"left": x < -near, "right": x > near, "middle": abs(x) < _SIDE + _SIDE_MARGIN}[side]


def negation_right(seen: Seen, scene: Scene, stated: Collection[str], forbidden: Collection[str]) -> bool:
    """Whether nothing is there that was forbidden, and what was asked for is, by number, kind and colour.

    A caption may deny things and leave open what is there instead: then any objects will do.
    """
    return named_right(seen, scene, stated) and not any(_shows(seen, what) for what in forbidden)


def _shows(seen: Seen, what: str) -> bool:
    """Whether something forbidden is there; `else` is told by the number of objects."""
    name, _, value = what.partition(":")
    shown = [one.attributes for one in seen.objects]
    if name == "text":
        return seen.picture["text"] != "none"
    if name == "hat":
        return any(one.get("hat", "none") != "none" for one in shown)
    if name == "shape":
        return any(one["kind"] == value for one in shown)
    if name == "pattern":
        return any(one.get("pattern") == value for one in shown)
    colors = ("color", "second", "head", "hat_color")
    return name == "color" and any(one.get(each) == value for one in shown for each in colors)


def sources_right(seen: Seen, target: Scene, sources: Sequence[int | None]) -> bool:
    """Whether just the subjects of the target are there: those that a reference gives with all that it shows of them.

    Those that are only described have their kind and colour.
    """
    return _each_right(seen, target, [NAMED if source is None else SHOWN for source in sources])


def source_attributes_right(seen: Seen, target: Scene, sources: Sequence[int | None]) -> list[tuple[str, bool]]:
    """Of what references show of subjects, category by category, whether it is seen."""
    return _attributes_right(seen, target, [() if source is None else SHOWN for source in sources])


def follows(seen: Seen, target: Scene, reach: float = 0.08) -> bool:
    """Whether just the subjects of the target are there, each in its place, kind and colour."""
    return len(seen.objects) == len(target.subjects) and all(
        one is not None and not wrong_attributes(one, true.attributes, NAMED)
        for true, one in matched(seen, truth(target), reach)
    )


def edit_of_subject_done(seen: Seen, edit: Edit) -> bool:
    """Whether a change of one subject was made: it is in its new place with all its attributes, or gone."""
    right = truth(edit.after)
    if len(seen.objects) != len(right.objects):
        return False
    pairs = matched(seen, right, 0.12)
    if edit.kind == "remove":
        return all(one is not None for _, one in pairs)
    true, one = pairs[edit.subject or 0]
    changed = edit.after.subjects[edit.subject or 0]
    return one is not None and not wrong_attributes(one, {**true.attributes, **subject_attributes(changed)}, SHOWN)
