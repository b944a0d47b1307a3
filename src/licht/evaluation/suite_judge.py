"""The judge itself: what it sees in true pictures that it was not trained on. Nothing is drawn."""

from typing import Final

from licht.evaluation.ceiling import hits_of
from licht.evaluation.intervals import share
from licht.evaluation.seen import truth
from licht.evaluation.suites import SEED, USUAL, Bench
from licht.world.render import render
from licht.world.sample import KINDS, sample_scene

_AT_ONCE: Final = 32


def judge(bench: Bench) -> None:
    """Shares of objects found, of each attribute right, and of pictures in which everything is right."""
    count = bench.count(USUAL)
    scenes = [sample_scene(KINDS[at % len(KINDS)], SEED, at, split="test", pairs="any") for at in range(count)]
    seen = []
    for first in range(0, count, _AT_ONCE):
        seen += bench.look(list(render(scenes[first : first + _AT_ONCE], 128, 128)))
        bench.on_progress(len(seen))
    for name, hits in hits_of(seen, [truth(scene) for scene in scenes]).items():
        bench.notebook.rows[name] = share(hits)
