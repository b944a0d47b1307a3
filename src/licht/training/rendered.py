"""The rendered world as training data: scenes, edits and tasks to latents, references and ids."""

from collections.abc import Iterator
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor

from licht.core.errors import InvalidSettings
from licht.model.autoencoder import Autoencoder
from licht.sampling.noise import grid_to_tokens
from licht.training.config import Source, Stream
from licht.training.pictures import Render
from licht.training.tokenizer import CaptionEncoder
from licht.world.captions import caption
from licht.world.edits import EDIT_KINDS, EditKind, sample_edit
from licht.world.pictures import Photo, Picture, render_pictures
from licht.world.render import render
from licht.world.sample import Kind, sample_kind, sample_scene
from licht.world.scene import Scene
from licht.world.tasks import TASK_KINDS, Task, TaskKind, sample_task
from licht.world.words import Split

_ENCODED_AT_ONCE = 32
_ROWS_APART = 64
"""Tasks of one kind have varying numbers of references; each row may look through this many for one that fits."""
MAP_KINDS: tuple[TaskKind, ...] = ("palette", "depth", "edges")
"""Tasks whose first reference is no photograph: every tenth picture of the autoencoder is one of those."""


class RenderedRows:
    """Prepares rows of streams; the same row is the same in any call."""

    def __init__(self, autoencoder: Autoencoder, encoder: CaptionEncoder, split: Split, seed: int) -> None:
        """Encode with a trained `autoencoder`; scenes come from `split` and `seed`."""
        self.autoencoder, self.encoder, self.split, self.seed = autoencoder, encoder, split, seed

    def __call__(self, stream: Stream, first: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(latents, references, ids) of rows `first` to `first` + `count` of `stream`."""
        targets: list[Scene] = []
        shown: list[Picture] = []
        ids = np.zeros((count, stream.captions, self.encoder.length), np.uint16)
        for row in range(count):
            target, references, texts = self.row(stream, first + row)
            targets.append(target)
            shown += references
            ids[row], _ = self.encoder([texts[n % len(texts)] for n in range(stream.captions)])
        latents = latents_of(self.autoencoder, render(targets, *stream.size_px))
        if not shown:
            return latents.numpy(), np.zeros((count, 1, latents.shape[2]), np.float16), ids
        encoded = latents_of(self.autoencoder, render_pictures(shown, stream.reference_px, stream.reference_px))
        return latents.numpy(), encoded.reshape(count, -1, latents.shape[2]).numpy(), ids

    def scenes(self, stream: Stream, first: int, count: int) -> list[Scene]:
        """What the targets of these rows show."""
        return [self.row(stream, number)[0] for number in range(first, first + count)]

    def row(self, stream: Stream, row: int) -> tuple[Scene, list[Picture], list[str]]:
        """(target, references, texts) of one row. A kind that stands several times in a stream shows another each time."""
        turn, place = divmod(stream.skip + row, len(stream.kinds))
        kind = stream.kinds[place]
        index = turn * stream.kinds.count(kind) + stream.kinds[:place].count(kind)
        aspect = stream.size_px[0] / stream.size_px[1]
        if stream.source is Source.PICTURE:
            scene = sample_scene(cast(Kind, kind), self.seed, index, split=self.split, aspect=aspect)
            numbers = range(index * stream.captions, (index + 1) * stream.captions)
            return scene, [], [caption(scene, self.seed, number, split=self.split).text for number in numbers]
        if stream.source is Source.EDIT:
            edit = sample_edit(cast(EditKind, kind), self.seed, index, split=self.split, aspect=aspect)
            return edit.after, [Photo(edit.before)], list(edit.instructions)
        fitting = (each for each in self._tasks(kind, index, aspect) if len(each.references) == stream.references)
        task = next(fitting, None)
        if task is None:
            raise InvalidSettings(
                f"none of {_ROWS_APART} tasks of kind {kind} has {stream.references} references, as {stream.name} wants; "
                "change its kinds or references",
                field="data.streams",
            )
        return task.target, [reference.picture for reference in task.references], list(task.instructions)

    def _tasks(self, kind: str, index: int, aspect: float) -> Iterator[Task]:
        for number in range(index * _ROWS_APART, (index + 1) * _ROWS_APART):
            yield sample_task(cast(TaskKind, kind), self.seed, number, split=self.split, aspect=aspect)


@torch.no_grad()
def latents_of(autoencoder: Autoencoder, pixels_BHWC: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> whitened latent tokens (B, L, C) float16 on the CPU."""
    weight = autoencoder.decoder.conv_in.weight
    parts = []
    for part in pixels_BHWC.split(_ENCODED_AT_ONCE):
        image = part.permute(0, 3, 1, 2).to(weight.device, torch.float32) / 127.5 - 1
        parts.append(grid_to_tokens(autoencoder.encode(image)).half().cpu())
    return torch.cat(parts)


def mixed_pictures(seed: int) -> Render:
    """Pictures of every sort, for the autoencoder: (first, count) -> uint8 (count, 128, 128, 3)."""
    return partial(_mixed_pictures, seed)


def _mixed_pictures(seed: int, first: int, count: int) -> Tensor:
    return render_pictures([_mixed_picture(seed, index) for index in range(first, first + count)], 128, 128)


def mixed_scene(seed: int, index: int) -> Scene | None:
    """The scene that picture `index` of `mixed_pictures` shows, if it is a photograph of one."""
    return None if index % 10 == 9 else sample_scene(sample_kind(seed, index), seed, index)


def _mixed_picture(seed: int, index: int) -> Picture:
    scene = mixed_scene(seed, index)
    if scene is None:
        return sample_task(MAP_KINDS[index // 10 % len(MAP_KINDS)], seed, index).references[0].picture
    return Photo(scene)


def mixed_captions(seed: int, count: int) -> list[str]:
    """Texts of every source and kind, for the tokenizer."""
    texts: list[str] = []
    for index in range(count // 8):
        scene = sample_scene(sample_kind(seed, index), seed, index)
        texts += [caption(scene, seed, 4 * index + phrasing).text for phrasing in range(4)]
        texts += sample_edit(EDIT_KINDS[index % len(EDIT_KINDS)], seed, index).instructions[:2]
        texts += sample_task(TASK_KINDS[index % len(TASK_KINDS)], seed, index).instructions[:2]
    return texts
