"""Training the judge on rendered pictures, pairs of colour and shape that models never see included.

Shapes: B pictures, N objects of a picture, P places that are looked at from near, K numbers, C channels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from licht.checkpoint.save import save_tensors
from licht.core.errors import InvalidSettings
from licht.evaluation.ceiling import recognised
from licht.evaluation.judge import Judge, corrections, judge_file, split_by
from licht.evaluation.judge_networks import (
    BOX,
    CELL_PX,
    Glance,
    JudgeNetwork,
    Near,
    Spots,
    boxes_of,
    overlaps,
    places_of,
)
from licht.evaluation.seen import OBJECT_CATEGORIES, PICTURE_CATEGORIES, colors_sorted, truth
from licht.training.config import Recipe, Task
from licht.training.draws import generator_of
from licht.training.loop import Rank
from licht.training.pictures import PictureStore
from licht.training.state import newest_checkpoint, read_recipe, read_tensors
from licht.training.workers import usable_cores
from licht.world.draw import Dice, surface
from licht.world.render import render
from licht.world.sample import Kind, sample_scene
from licht.world.scene import MAX_SUBJECTS, Character, Scene, Subject
from licht.world.vocabulary import is_hex, srgb_of

_SIDE_PX: Final = 128
_SIDE: Final = _SIDE_PX // CELL_PX
_HELD_OUT: Final = 512
_SHARES: Final[tuple[tuple[Kind, int], ...]] = (
    *(("one", 9), ("two", 5), ("relation", 5), ("row", 4), ("layout", 4), ("many", 4), ("character", 7)),
    *(("word", 2), ("two_lines", 1), ("hex", 5), ("pattern", 3), ("studio", 3), ("negation", 2)),
)
_KINDS: Final = tuple(kind for kind, share in _SHARES for _ in range(share))
_HEAT_DEVIATION: Final = 0.9
_WEIGHTS: Final = {
    "heat": 1.0,
    "box": 0.5,
    "there": 1.0,
    "correction": 2.0,
    "rgb": 4.0,
    "objects": 1.0,
    "picture": 0.5,
}
_NEAR_EACH: Final = 3
"""So many things of a picture are looked at in a step."""
_ASTRAY: Final = 0.5
_RIGHT, _WRONG = 0.5, 0.35
"""A place shows the thing whose box overlaps it at least so much, and nothing if none overlaps it more than that."""


@dataclass(frozen=True, slots=True)
class Softening:
    """`soften`: uint8 pictures (B, H, W, 3) -> the same as they come out of an autoencoder; `name` says of which."""

    soften: Callable[[Tensor], Tensor]
    name: str


def judge_scene(seed: int, index: int, patterned: float = 0.0) -> Scene:
    """Scene `index` of the judge's own data: all pairs of colours and shapes, no words kept for testing.

    `patterned` is the share of plain things of a named colour that are given a pattern.
    """
    scene = sample_scene(_KINDS[index % len(_KINDS)], seed, index, pairs="any" if index % 3 else "unseen")
    dice = Dice.of("train", "any", "pattern", seed, index)
    return replace(scene, subjects=tuple(_with_pattern(subject, dice, patterned) for subject in scene.subjects))


def _with_pattern(subject: Subject, dice: Dice, share: float) -> Subject:
    if isinstance(subject, Character) or subject.pattern != "plain" or subject.material == "metal":
        return subject
    if is_hex(subject.color) or not dice.chance(share):
        return subject
    pattern, second = surface(dice, subject.color)
    return replace(subject, pattern=pattern, second=second)


def is_softened(index: int) -> bool:
    """Whether picture `index` goes through the autoencoder: a third of them, of every kind and all pairs."""
    return index % 9 in {0, 4, 8}


@dataclass(frozen=True, slots=True)
class Targets:
    """What is right, for B pictures of at most N objects.

    `boxes_BN4` in shares of the picture, `there_BN` where there is an object, `rgb_BNK`; `categories_BNK` and
    `picture_BK`: the right class of each category, -1 where it has none.
    """

    boxes_BN4: Tensor
    there_BN: Tensor
    rgb_BNK: Tensor
    categories_BNK: Tensor
    picture_BK: Tensor

    def rows(self, indices: Tensor) -> "Targets":
        """Those of some pictures."""
        return Targets(
            self.boxes_BN4[indices],
            self.there_BN[indices],
            self.rgb_BNK[indices],
            self.categories_BNK[indices],
            self.picture_BK[indices],
        )

    def to(self, device: torch.device) -> "Targets":
        """On another device."""
        return Targets(
            self.boxes_BN4.to(device),
            self.there_BN.to(device),
            self.rgb_BNK.to(device),
            self.categories_BNK.to(device),
            self.picture_BK.to(device),
        )


def targets_of(scenes: Sequence[Scene]) -> Targets:
    """Targets of pictures of 128x128 px."""
    count = len(scenes)
    boxes = np.zeros((count, MAX_SUBJECTS, BOX), np.float32)
    there = np.zeros((count, MAX_SUBJECTS), np.bool_)
    rgb = np.zeros((count, MAX_SUBJECTS, 3), np.float32)
    categories = np.full((count, MAX_SUBJECTS, len(OBJECT_CATEGORIES)), -1, np.int64)
    picture = np.zeros((count, len(PICTURE_CATEGORIES)), np.int64)
    for row, scene in enumerate(scenes):
        seen = truth(scene, _SIDE_PX, _SIDE_PX)
        picture[row] = [names.index(seen.picture[name]) for name, names in PICTURE_CATEGORIES.items()]
        for number, (told, subject) in enumerate(zip(seen.objects, scene.subjects, strict=True)):
            one = colors_sorted(told, subject)
            boxes[row, number], there[row, number], rgb[row, number] = one.box, True, srgb_of(one.hex)
            for column, (name, names) in enumerate(OBJECT_CATEGORIES.items()):
                if name in one.attributes:
                    categories[row, number, column] = names.index(one.attributes[name])
    return Targets(*(torch.from_numpy(array) for array in (boxes, there, rgb, categories, picture)))


def mirrored(targets: Targets, turned_B: Tensor) -> Targets:
    """Targets of pictures of which some are turned about the vertical: left is right there."""
    left, top, right, bottom = targets.boxes_BN4.unbind(-1)
    boxes = torch.stack([1 - right, top, 1 - left, bottom], -1)
    boxes = torch.where((turned_B[:, None] & targets.there_BN)[..., None], boxes, targets.boxes_BN4)
    categories, picture = targets.categories_BNK.clone(), targets.picture_BK.clone()
    for column, names in enumerate(OBJECT_CATEGORIES.values()):
        categories[..., column] = _mirrored(names, categories[..., column], turned_B[:, None])
    for column, names in enumerate(PICTURE_CATEGORIES.values()):
        picture[:, column] = _mirrored(names, picture[:, column], turned_B)
    return Targets(boxes, targets.there_BN, targets.rgb_BNK, categories, picture)


def _mirrored(names: Sequence[str], classes: Tensor, turned: Tensor) -> Tensor:
    if "left" not in names:
        return classes
    left, right = names.index("left"), names.index("right")
    other = torch.where(classes == left, right, torch.where(classes == right, left, classes))
    return torch.where(turned, other, classes)


@dataclass(frozen=True, slots=True)
class Places:
    """Where a step looks from near, and which object is there (-1: none as a whole)."""

    spots: Spots
    owner_P: Tensor

    def to(self, device: torch.device) -> "Places":
        """On another device."""
        spots = Spots(self.spots.at_N.to(device), self.spots.boxes_N4.to(device), self.spots.middles_N2.to(device))
        return Places(spots, self.owner_P.to(device))


def draw_places(targets: Targets, generator: torch.Generator) -> Places:
    """Up to three things of each picture, about as well framed as a finder does it, and places that went astray."""
    rank = torch.rand(targets.there_BN.shape, generator=generator).masked_fill(~targets.there_BN, -1.0)
    value, number = rank.topk(_NEAR_EACH, 1)
    at, column = (value >= 0).nonzero(as_tuple=True)
    true = targets.boxes_BN4[at, number[at, column]]
    astray = torch.rand(len(at), generator=generator) < _ASTRAY
    at = torch.cat([at, at[astray]])
    boxes = torch.cat([_shaken(true, 0.1, 0.18, generator), _shaken(true[astray], 1.0, 0.9, generator)])
    best, owner = overlaps(boxes[:, None], targets.boxes_BN4[at])[:, 0].max(1)
    kept = (best >= _RIGHT) | (best < _WRONG)
    there = (best >= _RIGHT)[:, None]
    # a finder notices a thing in its middle, however it may frame it
    middles = places_of(torch.where(there, targets.boxes_BN4[at, owner], boxes))[:, :2]
    return Places(Spots(at[kept], boxes[kept], middles[kept]), torch.where(there[:, 0], owner, -1)[kept])


def _shaken(boxes_P4: Tensor, shift: float, stretch: float, generator: torch.Generator) -> Tensor:
    """Boxes moved by up to `shift` of their longer side and stretched by up to e^`stretch`."""
    place = places_of(boxes_P4)
    chance = torch.rand(len(place), 5, generator=generator) * 2 - 1
    side = place[:, 2:].amax(1, keepdim=True)
    size = place[:, 2:] * (stretch * chance[:, 2:3] + 0.08 * chance[:, 3:5]).exp()
    return boxes_of(torch.cat([place[:, :2] + shift * chance[:, :2] * side, size], 1))


def heat_map(places_BN4: Tensor, there_BN: Tensor) -> tuple[Tensor, Tensor]:
    """((B, H, W): 1 at the cells of the objects' middles, falling off around them; those cells (B, N) as numbers)."""
    cells = (places_BN4[..., :2].clamp(0, 1 - 1e-4) * _SIDE).long()
    grid = torch.arange(_SIDE, device=cells.device)
    down = (grid[:, None] - cells[..., 1, None, None]).square()
    distance = down + (grid - cells[..., 0, None, None]).square()
    bumps = torch.exp(-distance / (2 * _HEAT_DEVIATION**2)) * there_BN[..., None, None]
    return bumps.amax(1), cells[..., 1] * _SIDE + cells[..., 0]


def finder_losses(glance: Glance, targets: Targets) -> dict[str, Tensor]:
    """The focal loss of key points (Zhou et al., Objects as Points, 2019), and places."""
    cells_BCHW, place = glance.cells_BCHW, places_of(targets.boxes_BN4)
    wanted, at_BN = heat_map(place, targets.there_BN)
    chance = cells_BCHW[:, 0].float().sigmoid().clamp(1e-4, 1 - 1e-4)
    peak = wanted >= 0.999
    hit = -((1 - chance) ** 2) * chance.log() * peak
    miss = -((1 - wanted) ** 4) * chance**2 * (1 - chance).log() * ~peak
    count = targets.there_BN.sum().clamp(min=1)
    index = at_BN[:, None].expand(-1, BOX, -1)
    answers = cells_BCHW[:, 1 : 1 + BOX].flatten(2).float().gather(2, index).transpose(1, 2)
    middle = torch.stack([at_BN % _SIDE, at_BN // _SIDE], -1) + 0.5
    right = torch.cat([place[..., :2] * _SIDE - middle, place[..., 2:]], -1)
    away = (answers - right).abs().sum(-1)[targets.there_BN].sum()
    return {"heat": (hit + miss).sum() / count, "box": away / count}


def near_losses(near: Near, places: Places, targets: Targets) -> dict[str, Tensor]:
    """Whether a thing is there, where exactly, its colour and its classes."""
    there = places.owner_P >= 0
    at, owner = places.spots.at_N[there], places.owner_P[there]
    count = there.sum().clamp(min=1)
    right = corrections(places.spots.boxes_N4[there], targets.boxes_BN4[at, owner], 1.0)
    classes = targets.categories_BNK[at, owner]
    logits = split_by(OBJECT_CATEGORIES, near.categories_NC[there].float())
    objects = [
        F.cross_entropy(logits[name], classes[:, column], ignore_index=-1, reduction="sum")
        for column, name in enumerate(OBJECT_CATEGORIES)
    ]
    return {
        "there": F.binary_cross_entropy_with_logits(near.there_N.float(), there.float()),
        "correction": (near.box_NK[there].float() - right).abs().sum() / count,
        "rgb": (near.rgb_NK[there].float() - targets.rgb_BNK[at, owner]).abs().sum() / count,
        "objects": torch.stack(objects).sum() / count,
    }


def picture_losses(picture_BC: Tensor, targets: Targets) -> dict[str, Tensor]:
    """The classes of whole pictures."""
    logits = split_by(PICTURE_CATEGORIES, picture_BC.float())
    whole = [
        F.cross_entropy(logits[name], targets.picture_BK[:, column]) for column, name in enumerate(PICTURE_CATEGORIES)
    ]
    return {"picture": torch.stack(whole).sum()}


@dataclass(frozen=True, slots=True)
class JudgeBatch:
    """Images in [-1, 1], where to look, and what is right."""

    image_BCHW: Tensor
    places: Places
    targets: Targets


class JudgeModule(nn.Module):
    """The networks and their losses."""

    def __init__(self) -> None:
        """Untrained networks from torch's current seed."""
        super().__init__()
        self.network = JudgeNetwork()
        self.finds = True

    def keep_finder(self) -> None:
        """Train the finder no further."""
        self.network.finder.requires_grad_(False).eval()
        self.finds = False

    def forward(self, batch: JudgeBatch) -> dict[str, Tensor]:
        """Weighted terms of the loss."""
        image, places = batch.image_BCHW.contiguous(memory_format=torch.channels_last), batch.places
        with torch.set_grad_enabled(self.finds and torch.is_grad_enabled()):
            glance = self.network.find(image)
        context, picture = self.network.look_far(image, glance)
        near = self.network.look_near(image, glance, context, places.spots)
        terms = {**near_losses(near, places, batch.targets), **picture_losses(picture, batch.targets)}
        terms |= finder_losses(glance, batch.targets) if self.finds else {}
        return {name: _WEIGHTS[name] * term for name, term in terms.items()}


def _spoil(image_BCHW: Tensor, generator: torch.Generator) -> None:
    """Blur more than half of the pictures a little and lay noise over a quarter of them, in place."""
    count = len(image_BCHW)
    blurred, noisy = (torch.rand(count, generator=generator) < share for share in (0.6, 0.25))
    soft = F.avg_pool2d(F.pad(image_BCHW[blurred], (1, 1, 1, 1), mode="replicate"), 3, 1)
    image_BCHW[blurred] = torch.lerp(
        image_BCHW[blurred], soft, 0.5 * torch.rand(len(soft), 1, 1, 1, generator=generator)
    )
    noise = torch.randn(image_BCHW[noisy].shape, generator=generator)
    image_BCHW[noisy] += 0.06 * torch.rand(len(noise), 1, 1, 1, generator=generator) * noise


class JudgeTask:
    """Batches of rendered pictures, some of them turned, blurred or noisy as pictures out of a decoder are."""

    def __init__(self, recipe: Recipe, store: PictureStore, device: torch.device) -> None:
        """`store` holds the pictures of `judge_scene`; the last ones are held out."""
        self.recipe, self.store, self.device = recipe, store, device
        torch.manual_seed(recipe.seed)
        self.judge = JudgeModule()
        self.module: nn.Module = self.judge.to(device).to(memory_format=torch.channels_last)
        self.targets = targets_of([self.scene(index) for index in range(store.count)])

    def scene(self, index: int) -> Scene:
        """What picture `index` shows."""
        return judge_scene(self.recipe.data.seed, index, self.recipe.judge.patterned)

    def batch(self, step: int, rank: Rank) -> JudgeBatch:
        """This rank's pictures of the step."""
        generator = generator_of(self.recipe, step)
        count = self.recipe.optim.batch
        indices = torch.randint(self.store.count - _HELD_OUT, (count,), generator=generator)
        turned = torch.rand(count, generator=generator) < 0.5
        mine = torch.arange(rank.index, count, rank.count)
        own = torch.Generator().manual_seed((self.recipe.seed * 1_000_003 + step) * 64 + rank.index)
        targets = mirrored(self.targets.rows(indices[mine]), turned[mine])
        image = self.store.images(indices[mine])
        image[turned[mine]] = image[turned[mine]].flip(3)
        _spoil(image, own)
        places = draw_places(targets, own)
        return JudgeBatch(image.to(self.device), places.to(self.device), targets.to(self.device))

    @torch.no_grad()
    def sample(self, path: Path, step: int) -> dict[str, float]:
        """How much of held-out pictures is right: everything, and each attribute; the same of softened ones."""
        del path, step
        network = JudgeNetwork()
        network.load_state_dict({name: tensor.cpu() for name, tensor in self.judge.network.state_dict().items()})
        judge, found = Judge(network), dict[str, float]()
        held_out = range(self.store.count - _HELD_OUT, self.store.count)
        for prefix, softened in (("", False), ("softened_", True)):
            indices = [index for index in held_out if is_softened(index) is softened]
            pixels = self.store.images(torch.tensor(indices)).add(1).mul(127.5).round().to(torch.uint8)
            right = [truth(self.scene(index)) for index in indices]
            shares = recognised(judge.look(pixels.permute(0, 2, 3, 1)), right)
            found |= {prefix + name: value for name, value in shares.items()}
        return found


def assemble_judge(
    recipe: Recipe,
    data: Path,
    device: torch.device,
    on_progress: Callable[[str, int, int], None],
    softening: Softening | None = None,
) -> JudgeTask:
    """Render what is missing in `data`, a third of it softened if anything softens, and build the task.

    What the judge named by `start_from` has learned is taken over; networks that it lacks begin anew.
    """
    softened = "none" if softening is None else f"a third, by {softening.name}"
    seed, patterned = recipe.data.seed, recipe.judge.patterned
    shown = {"shows": "scenes of the judge", "seed": seed, "softened": softened, "patterned": patterned}
    store = PictureStore(data / "pictures.bin", recipe.data.pictures, (_SIDE_PX, _SIDE_PX), shown)
    draw = partial(_draw, seed, patterned, softening)
    store.fill(draw, 64, partial(on_progress, "pictures"), usable_cores())
    task = JudgeTask(recipe, store, device)
    if recipe.start_from is not None:
        _take_over(task.judge, _judge_tensors(recipe.start_from), recipe.start_from)
    if recipe.judge.keep_finder:
        task.judge.keep_finder()
    return task


def _draw(seed: int, patterned: float, softening: Softening | None, first: int, count: int) -> Tensor:
    pictures = render([judge_scene(seed, index, patterned) for index in range(first, first + count)], 128, 128)
    some = torch.tensor([number for number in range(count) if is_softened(first + number)])
    if softening is not None and len(some):
        pictures[some] = softening.soften(pictures[some])
    return pictures


def _judge_tensors(start: str) -> dict[str, Tensor]:
    """Weights of a `JudgeModule`: of a run, of an exported file, or of the judge that is shipped."""
    path = judge_file() if start == "shipped" else Path(start).expanduser()
    if path.is_file():
        return {f"network.{name}": tensor.float() for name, tensor in read_tensors(path).items()}
    return read_tensors(newest_checkpoint(path) / "state.safetensors", "ema/")


def _take_over(module: nn.Module, tensors: dict[str, Tensor], start: str) -> None:
    ours = module.state_dict()
    differing = [name for name, tensor in tensors.items() if name not in ours or ours[name].shape != tensor.shape]
    if differing:
        raise InvalidSettings(f"{start} holds another kind of judge, for example {differing[0]}; train it anew")
    module.load_state_dict(tensors, strict=False)


def export_judge(run: Path, target: Path) -> Path:
    """Write the newest averages of a judge's run to one file, in half precision. Raises `InvalidSettings`."""
    checkpoint = newest_checkpoint(run)
    if read_recipe(checkpoint).task is not Task.JUDGE:
        raise InvalidSettings(f"{run} has not trained a judge; expected the run of `licht train nano_judge`")
    tensors = read_tensors(checkpoint / "state.safetensors", "ema/network.")
    kept = {name: tensor.half() for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    target.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(target, kept)
    return target
