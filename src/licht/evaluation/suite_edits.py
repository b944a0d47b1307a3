"""Edits and references: was the change made, did the rest stay, is each reference in its place?"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from licht.evaluation import scoring, segmentation
from licht.evaluation.decoded import decoded
from licht.evaluation.intervals import mean, share, shares
from licht.evaluation.reading import reads
from licht.evaluation.seen import Seen, truth
from licht.evaluation.suites import BOLD, SEED, USUAL, Bench
from licht.world.edits import EDIT_KINDS, Edit, change_mask, change_weight, sample_edit
from licht.world.maps import render_maps
from licht.world.pictures import render_pictures
from licht.world.render import render
from licht.world.scene import Thing
from licht.world.tasks import Task, TaskKind, sample_task

_LEAST_REST: Final = 0.2
"""An edit that leaves less than this share of the picture alone has no rest to compare."""
_OUTLINE: Final = 0.5
_SMALL_FROM: Final = 5
"""So many references are shown at 64 px, as in training."""
_TILE_PX: Final = 64
_OF_SUBJECTS: Final = ("recolor", "restyle", "resize", "move", "add", "remove", "replace")


def edit(bench: Bench) -> None:
    """Whether asked changes are made, and how the rest comes through."""
    count = bench.count(BOLD)
    edits = [
        sample_edit(EDIT_KINDS[at % len(EDIT_KINDS)], SEED, at // len(EDIT_KINDS), split="test") for at in range(count)
    ]
    before = render([each.before for each in edits], 128, 128)
    after = render([each.after for each in edits], 128, 128)
    drawn = [
        bench.draw(each.instructions[at % len(each.instructions)], SEED + at, [before[at]])
        for at, each in enumerate(edits)
    ]
    rows = bench.notebook.rows
    looks, true_looks = bench.look(drawn), bench.look(list(after))
    hits = _done(bench, edits, looks, zip(drawn, before, after, strict=True))
    true = _done(bench, edits, true_looks, zip(after, before, after, strict=True))
    rows["edit_done"], rows["edit_done_ceiling"] = share(hits), share(true)
    for suffix, some in (("", hits), ("_ceiling", true)):
        for kind in EDIT_KINDS:
            of_kind = [hit for hit, each in zip(some, edits, strict=True) if each.kind == kind]
            rows[f"edit_{kind}{suffix}"] = share(of_kind)
    for suffix, seen in (("", looks), ("_ceiling", true_looks)):
        rows[f"edit_subjects_kept{suffix}"] = share(_kept(edits, seen))
    rows["edit_rest_psnr"] = mean(_rest_psnr(drawn, before, after))
    if bench.autoencoder is not None:
        # no model of this autoencoder can give the rest back more exactly
        best = decoded(bench.autoencoder, after, exact=True)
        rows["edit_rest_psnr_ceiling"] = mean(_rest_psnr(list(best), before, after))
    rows["edit_nearer_after"] = share([_nearer(*each) for each in zip(drawn, before, after, strict=True)])
    _by_geometry(bench, edits, drawn, after)
    labels = [each.instructions[at % len(each.instructions)] for at, each in enumerate(edits)]
    bench.keep("edit", [_beside(one, other) for one, other in zip(before, drawn, strict=True)], labels, hits)


def _beside(one: Tensor, other: Tensor) -> Tensor:
    return torch.cat([one, other], dim=1)


def _done(
    bench: Bench, edits: Sequence[Edit], looks: Sequence[Seen], pictures: Iterable[tuple[Tensor, Tensor, Tensor]]
) -> list[bool]:
    return [edit_done(bench, *each) for each in zip(edits, looks, pictures, strict=True)]


def edit_done(bench: Bench, asked: Edit, seen: Seen, pictures: tuple[Tensor, Tensor, Tensor]) -> bool:
    """Whether the change was made; `pictures` are (drawn, before, after).

    Subjects, floor and light are judged; words are read; the camera, the colour of letters, and words where nothing
    can read them are told by whether the change brought the picture nearer to the right one than to the old one.
    """
    right = truth(asked.after).picture
    if asked.kind in _OF_SUBJECTS:
        return scoring.edit_of_subject_done(seen, asked)
    if asked.kind == "floor":
        return seen.picture["floor"] == right["floor"]
    if asked.kind == "relight":
        return all(seen.picture[name] == right[name] for name in _of_light(asked))
    old, new = asked.before.lettering, asked.after.lettering
    same_words = old is not None and new is not None and old.lines == new.lines
    if asked.kind == "text" and not same_words and bench.reader is not None:
        lines = bench.reader(pictures[0])
        return reads(lines, new.lines) if new is not None else not lines
    return _nearer(*pictures)


def _of_light(asked: Edit) -> list[str]:
    """What is judged of a new light. Its height is told where it changes, and cannot be seen from right above."""
    old, new = asked.before.light, asked.after.light
    told = new.height != old.height and new.side != "above"
    return ["light_side", "warmth", *(["light_height"] if told else [])]


def _nearer(drawn: Tensor, before: Tensor, after: Tensor) -> bool:
    """Whether a picture is nearer to the right one than to the old one, where those differ."""
    changed = change_mask(before[None], after[None])[0]
    to_after, to_before = ((drawn.float() - other.float()).square()[changed].mean() for other in (after, before))
    return bool(to_after < to_before)


def _kept(edits: Sequence[Edit], looks: Sequence[Seen]) -> list[bool]:
    """Of edits that ask nothing of the subjects, which leave all of those there, in number, kind, colour and place.

    Some of them, such as a new floor, leave hardly anything of the picture whose PSNR could tell.
    """
    of_rest = [
        (one, each)
        for one, each in zip(looks, edits, strict=True)
        if each.kind not in _OF_SUBJECTS and each.kind != "camera"
    ]
    return [scoring.follows(one, each.after) for one, each in of_rest]


def _rest_psnr(drawn: Sequence[Tensor], before: Tensor, after: Tensor) -> list[float]:
    """PSNR in dB of what was to stay, for edits that leave enough of it."""
    rest = ~change_weight(change_mask(before, after), 2)
    found = []
    for one, true, keep in zip(drawn, after, rest, strict=True):
        if float(keep.float().mean()) >= _LEAST_REST:
            error = (one.float() - true.float()).square()[keep].mean() / 255.0**2
            found.append(float(-10 * torch.log10(error.clamp(min=1e-7))))
    return found


def _by_geometry(bench: Bench, edits: Sequence[Edit], drawn: Sequence[Tensor], after: Tensor) -> None:
    """The check that is not learned: does the changed thing's colour fill its true outline?"""
    hits: list[bool] = []
    ceiling: list[bool] = []
    for at, each in enumerate(edits):
        changed = each.after.subjects[each.subject] if each.kind != "remove" and each.subject is not None else None
        if not isinstance(changed, Thing) or changed.pattern != "plain" or changed.color not in segmentation.TELLABLE:
            continue
        if changed.material == "metal" or each.after.light.warmth != "neutral" or each.kind not in _OF_SUBJECTS:
            continue
        instance = render_maps([each.after], 128, 128).instance_BHW[0]
        for kept, picture in ((hits, drawn[at]), (ceiling, after[at])):
            share_of = segmentation.agreement(picture, instance, each.subject or 0, changed.color)
            kept.append(share_of >= _OUTLINE)
    bench.notebook.rows["edit_by_geometry"] = share(hits)
    bench.notebook.rows["edit_by_geometry_ceiling"] = share(ceiling)


# References -----------------------------------------------------------------------------------------------------------

Right = Callable[[Seen, Task], bool]


def multiref(bench: Bench) -> None:
    """References kept, put together, exchanged and followed."""
    one = tasks("subject", bench.count(BOLD), 1)
    row(bench, "one_reference", one, lambda seen, task: scoring.sources_right(seen, task.target, task.sources))
    picked = tasks("pick", bench.count(USUAL), 2)
    row(bench, "picked_reference", picked, lambda seen, task: scoring.sources_right(seen, task.target, task.sources))
    many = tasks("subjects", bench.count(USUAL), 2)
    row(bench, "many_references", many, all_in_place)
    row(bench, "order_swap", [task.swapped() for task in many], all_in_place)
    row(bench, "ten_references", tasks("many", bench.count(USUAL), 8), all_in_place)
    row(bench, "depth_follow", tasks("depth", bench.count(USUAL), 1), lambda s, task: scoring.follows(s, task.target))


def all_in_place(seen: Seen, task: Task) -> bool:
    """Whether every reference's subject is there with all its looks, and they stand to one another as asked."""
    return scoring.sources_right(seen, task.target, task.sources) and scoring.places_right(seen, task.target)


def tasks(kind: TaskKind, count: int, least: int) -> list[Task]:
    """Held-out tasks of a kind with at least so many references."""
    found: list[Task] = []
    index = 0
    while len(found) < count:
        task = sample_task(kind, SEED, index, split="test")
        index += 1
        found += [task] if len(task.references) >= least else []
    return found


def _tiled(references_BHWC: Tensor) -> Tensor:
    """References at 64 px in two rows, 128 px high in all, from left to right: (128, W, 3)."""
    small = F.interpolate(references_BHWC.permute(0, 3, 1, 2).float(), (_TILE_PX, _TILE_PX), mode="area")
    columns = -(-len(small) // 2)
    white = small.new_full((2 * columns - len(small), 3, _TILE_PX, _TILE_PX), 255.0)
    tiles = torch.cat([small, white]).view(2, columns, 3, _TILE_PX, _TILE_PX).permute(0, 3, 1, 4, 2)
    return tiles.reshape(2 * _TILE_PX, columns * _TILE_PX, 3).round().to(torch.uint8)


def row(bench: Bench, name: str, tasks: Sequence[Task], right: Right) -> None:
    """Draw, judge and count tasks."""
    drawn, labels, shown = [], [], []
    for at, task in enumerate(tasks):
        side = 64 if len(task.references) >= _SMALL_FROM else 128
        references = render_pictures([each.picture for each in task.references], side, side)
        text = task.instructions[at % len(task.instructions)]
        drawn.append(bench.draw(text, SEED + at, list(references)))
        labels.append(text)
        shown.append(_beside(_tiled(references), drawn[-1]))
    looks = bench.look(drawn)
    true = bench.look(list(render([task.target for task in tasks], 128, 128)))
    hits = [right(seen, task) for seen, task in zip(looks, tasks, strict=True)]
    bench.notebook.rows[name] = share(hits)
    bench.notebook.rows[f"{name}_ceiling"] = share([right(s, task) for s, task in zip(true, tasks, strict=True)])
    _by_attribute(bench, name, tasks, {"": looks, "_ceiling": true})
    bench.keep(name, shown, labels, hits)


def _by_attribute(bench: Bench, name: str, tasks: Sequence[Task], looks: Mapping[str, Sequence[Seen]]) -> None:
    """Of what references show of subjects, the share of each attribute that is kept; none where they show maps."""
    for suffix, seen in looks.items():
        found = shares(
            each
            for one, task in zip(seen, tasks, strict=True)
            for each in scoring.source_attributes_right(one, task.target, task.sources)
        )
        bench.notebook.rows.update({f"{name}_{category}{suffix}": row for category, row in found.items()})
