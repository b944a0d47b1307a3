"""What stands where in a rendered picture, as classes: what a semantic regulariser asks the latents to tell.

The FLUX.2 report aligns latents with the features of a vision model; here the truth of the rendered scenes takes that
place. Shapes: B pictures, H and W latent positions of 8 px.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from licht.training.rendered import mixed_scene
from licht.world import vocabulary as v
from licht.world.maps import LETTERING, NOTHING, render_maps
from licht.world.parts import SIGN_OWNER
from licht.world.scene import Scene, Subject, Thing

POSITION_PX: Final = 8
KINDS: Final = ("floor", "sign", "lettering", *v.SHAPES, *(f"{body} character" for body in v.BODIES))
COLORS: Final = tuple(v.COLORS)
MATERIALS: Final = tuple(v.MATERIALS)
CLASSES: Final = (len(KINDS), len(COLORS), len(MATERIALS))
"""Of each position: the kind of what is seen there, and of objects the named colour and the material."""
UNKNOWN: Final = 255
"""Where there is nothing to tell: maps and palettes, the colour of a floor, colours without a name."""


def mixed_labels(seed: int) -> Callable[[int, int], Tensor]:
    """Labels of `rendered.mixed_pictures`: (first, count) -> uint8 (count, 16, 16, 3) of kind, colour, material."""
    return partial(_mixed_labels, seed)


def _mixed_labels(seed: int, first: int, count: int) -> Tensor:
    scenes = [mixed_scene(seed, index) for index in range(first, first + count)]
    known = [scene for scene in scenes if scene is not None]
    found = iter(position_labels(known, 128, 128))
    blank = torch.full((128 // POSITION_PX, 128 // POSITION_PX, 3), UNKNOWN, dtype=torch.uint8)
    return torch.stack([blank if scene is None else next(found) for scene in scenes])


def position_labels(scenes: list[Scene], width_px: int, height_px: int) -> Tensor:
    """uint8 (B, H, W, 3): kind, colour and material of what is seen in the middle of each latent position.

    Letters are thin: a position with any part of one is lettering.
    """
    if not scenes:
        return torch.empty(0, height_px // POSITION_PX, width_px // POSITION_PX, 3, dtype=torch.uint8)
    return labels_of(scenes, render_maps(scenes, width_px, height_px).instance_BHW)


def labels_of(scenes: list[Scene], fine: Tensor) -> Tensor:
    """`position_labels` from a map of instances, (B, 8 H, 8 W)."""
    instance = fine[:, POSITION_PX // 2 :: POSITION_PX, POSITION_PX // 2 :: POSITION_PX].clone()
    instance[F.max_pool2d((fine == LETTERING).float(), POSITION_PX).bool()] = LETTERING
    labels = torch.full((*instance.shape, 3), UNKNOWN, dtype=torch.uint8)
    for owner, kind in ((NOTHING, "floor"), (SIGN_OWNER, "sign"), (LETTERING, "lettering")):
        labels[..., 0][instance == owner] = KINDS.index(kind)
    for row, scene in enumerate(scenes):
        for number, subject in enumerate(scene.subjects):
            labels[row][instance[row] == number] = torch.tensor(_classes(subject), dtype=torch.uint8)
    return labels


def _classes(subject: Subject) -> tuple[int, int, int]:
    if not isinstance(subject, Thing):
        return KINDS.index(f"{subject.body} character"), UNKNOWN, UNKNOWN
    color = COLORS.index(subject.color) if subject.color in COLORS and subject.pattern == "plain" else UNKNOWN
    return KINDS.index(subject.shape), color, MATERIALS.index(subject.material)


def semantic_loss(logits_BCHW: Tensor, labels_BHWK: Tensor) -> Tensor:
    """Sum over kind, colour and material of the mean cross-entropy where there is something to tell."""
    return class_loss(logits_BCHW, labels_BHWK, CLASSES)


def class_loss(logits_BCHW: Tensor, labels_BHWK: Tensor, classes: tuple[int, ...]) -> Tensor:
    """The same for any labels, of which the first has `classes[0]` classes, and so on."""
    terms = []
    for number, logits in enumerate(logits_BCHW.float().split(classes, dim=1)):
        right = labels_BHWK[..., number].long()
        told = right != UNKNOWN
        errors = F.cross_entropy(logits, right.masked_fill(~told, 0), reduction="none") * told
        terms.append(errors.sum() / told.sum().clamp(min=1))
    return torch.stack(terms).sum()
