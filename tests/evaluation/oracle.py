"""A drawer that draws what is asked for, and a judge that sees what is there: suites must then find nothing wrong."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from licht.evaluation.judge import Judge
from licht.evaluation.judge_networks import JudgeNetwork
from licht.evaluation.seen import Seen, truth
from licht.world.pictures import Photo, render_pictures
from licht.world.scene import Scene


class Oracle(Judge):
    """Knows every picture that was rendered for it."""

    def __init__(self) -> None:
        super().__init__(JudgeNetwork())
        self._known: dict[bytes, Seen] = {}

    def show(self, scene: Scene) -> Tensor:
        picture = render_pictures([Photo(scene)], 128, 128)[0]
        self._known[picture.numpy().tobytes()] = truth(scene)
        return picture

    def look(self, pictures_BHWC: Tensor) -> list[Seen]:
        empty = Seen((), truth(Scene()).picture)
        return [self._known.get(picture.numpy().tobytes(), empty) for picture in pictures_BHWC]


class Renderer:
    """Draws the scene that belongs to a prompt."""

    def __init__(self, oracle: Oracle, scenes: dict[str, Scene]) -> None:
        self.oracle, self.scenes = oracle, scenes
        self.shown: list[Sequence[Tensor]] = []

    def draw(self, prompt: str, seed: int, references: Sequence[Tensor] = ()) -> Tensor:
        self.shown.append(references)
        if prompt not in self.scenes:
            return torch.zeros(128, 128, 3, dtype=torch.uint8)
        return self.oracle.show(self.scenes[prompt])


class Copyist(Renderer):
    """Draws the target of a task, told by its words and its references: the same words may be said of others."""

    def __init__(self, oracle: Oracle, tasks: Sequence[tuple[str, Sequence[Tensor], Scene]]) -> None:
        super().__init__(oracle, {})
        self._targets = {_key(text, references): target for text, references, target in tasks}

    def draw(self, prompt: str, seed: int, references: Sequence[Tensor] = ()) -> Tensor:
        target = self._targets.get(_key(prompt, references))
        return torch.zeros(128, 128, 3, dtype=torch.uint8) if target is None else self.oracle.show(target)


def _key(text: str, references: Sequence[Tensor]) -> tuple[str, ...]:
    return (text, *(hashlib.sha256(one.contiguous().numpy().tobytes()).hexdigest() for one in references))
