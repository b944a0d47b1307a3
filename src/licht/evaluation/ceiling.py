"""How much of what is certainly there a judge sees: the ceiling of every figure that it gives."""

from collections.abc import Sequence

from licht.evaluation.seen import OBJECT_CATEGORIES, PICTURE_CATEGORIES, Seen, SeenObject, wrong_attributes


def matched(seen: Seen, right: Seen, reach: float = 0.12) -> list[tuple[SeenObject, SeenObject | None]]:
    """(object that is right, what is seen in its place or None), each seen object used once, the nearest first."""
    pairs = sorted(
        (_distance(one, other), at, number)
        for at, one in enumerate(right.objects)
        for number, other in enumerate(seen.objects)
    )
    taken: dict[int, int] = {}
    for distance, at, number in pairs:
        if distance <= reach and at not in taken and number not in taken.values():
            taken[at] = number
    return [(one, seen.objects[taken[at]] if at in taken else None) for at, one in enumerate(right.objects)]


def _distance(one: SeenObject, other: SeenObject) -> float:
    dx, dy = one.center[0] - other.center[0], one.center[1] - other.center[1]
    return float((dx * dx + dy * dy) ** 0.5)


def recognised(seen: Sequence[Seen], right: Sequence[Seen]) -> dict[str, float]:
    """Shares of objects found, of each attribute right, of pictures in which everything is right."""
    return {name: sum(hits) / len(hits) for name, hits in hits_of(seen, right).items()}


def hits_of(seen: Sequence[Seen], right: Sequence[Seen]) -> dict[str, list[bool]]:
    """The same as single answers: every object for `found` and its attributes, every picture for the rest."""
    hits: dict[str, list[bool]] = {name: [] for name in ("found", *OBJECT_CATEGORIES, *PICTURE_CATEGORIES, "all")}
    for one, true in zip(seen, right, strict=True):
        whole = len(one.objects) == len(true.objects)
        for asked, answer in matched(one, true):
            hits["found"].append(answer is not None)
            whole &= answer is not None
            if answer is not None:
                wrong = wrong_attributes(answer, asked.attributes, tuple(asked.attributes))
                for name in asked.attributes:
                    hits[name].append(name not in wrong)
                whole &= not wrong
        for name, value in true.picture.items():
            hits[name].append(one.picture[name] == value)
        hits["all"].append(whole)
    return {name: values for name, values in hits.items() if values}
