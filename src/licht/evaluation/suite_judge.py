"""The judge itself: what it sees in true pictures that it was not trained on. Nothing is drawn.

With a model's autoencoder also in the same pictures as they come out of that: what the best of models would be told.
"""

from collections.abc import Callable, Sequence
from typing import Final

from torch import Tensor

from licht.evaluation import scoring
from licht.evaluation.ceiling import hits_of
from licht.evaluation.decoded import decoded
from licht.evaluation.intervals import share
from licht.evaluation.seen import Seen, truth
from licht.evaluation.suite_pictures import prompts
from licht.evaluation.suites import SEED, USUAL, Bench
from licht.world.render import render
from licht.world.sample import KINDS, Kind, sample_scene
from licht.world.scene import Scene

_AT_ONCE: Final = 32
_ROWS: Final[tuple[tuple[str, Kind], ...]] = (("one_object", "one"), ("two_objects", "two"))

Change = Callable[[Tensor], Tensor]


def judge(bench: Bench) -> None:
    """Ceilings of one and two objects; then, in pictures of every kind, shares of objects found and attributes right."""
    changes: dict[str, Change | None] = {"": None}
    autoencoder = bench.autoencoder
    if autoencoder is not None:
        changes["_decoded"] = lambda pictures: decoded(autoencoder, pictures)
    count = bench.count(USUAL)
    scenes = [sample_scene(KINDS[at % len(KINDS)], SEED, at, split="test", pairs="any") for at in range(count)]
    asked = {name: prompts(kind, count) for name, kind in _ROWS}
    for suffix, change in changes.items():
        for name, some in asked.items():
            seen = _seen(bench, [prompt.scene for prompt in some], change)
            hits = [
                scoring.objects_right(one, prompt.scene, prompt.told.stated)
                for one, prompt in zip(seen, some, strict=True)
            ]
            bench.notebook.rows[f"{name}{suffix}"] = share(hits)
        found = hits_of(_seen(bench, scenes, change), [truth(scene) for scene in scenes])
        for name, hits in found.items():
            bench.notebook.rows[f"{name}{suffix}"] = share(hits)


def _seen(bench: Bench, scenes: Sequence[Scene], change: Change | None) -> list[Seen]:
    seen: list[Seen] = []
    for first in range(0, len(scenes), _AT_ONCE):
        pictures = render(scenes[first : first + _AT_ONCE], 128, 128)
        some = bench.look(list(pictures if change is None else change(pictures)))
        seen += some
        bench.notebook.done += len(some)
        bench.on_progress(bench.notebook.done)
    return seen
