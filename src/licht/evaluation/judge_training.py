"""Training the judge on rendered pictures, pairs of colour and shape that models never see included.

Shapes: B pictures, N objects of a picture, C channels, H and W cells.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from licht.core.errors import InvalidSettings
from licht.evaluation.ceiling import recognised
from licht.evaluation.judge import BOX, CELL_PX, RGB, Judge, JudgeNetwork, split_by
from licht.evaluation.seen import OBJECT_CATEGORIES, PICTURE_CATEGORIES, truth
from licht.training.config import Recipe, Task
from licht.training.loop import Rank
from licht.training.pictures import PictureStore
from licht.training.state import newest_checkpoint, read_recipe, read_tensors
from licht.world.render import render
from licht.world.sample import Kind, sample_scene
from licht.world.scene import MAX_SUBJECTS, Scene
from licht.world.vocabulary import srgb_of

_SIDE_PX: Final = 128
_SIDE: Final = _SIDE_PX // CELL_PX
_HELD_OUT: Final = 512
_SHARES: Final[tuple[tuple[Kind, int], ...]] = (
    *(("one", 5), ("two", 5), ("relation", 5), ("row", 4), ("layout", 4), ("many", 4), ("character", 5)),
    *(("word", 2), ("two_lines", 1), ("hex", 5), ("pattern", 3), ("studio", 3), ("negation", 2)),
)
_KINDS: Final = tuple(kind for kind, share in _SHARES for _ in range(share))
_HEAT_DEVIATION: Final = 0.9
_WEIGHTS: Final = {"heat": 1.0, "box": 0.5, "rgb": 4.0, "objects": 1.0, "picture": 0.5}


def judge_scene(seed: int, index: int) -> Scene:
    """Scene `index` of the judge's own data: all pairs of colours and shapes, no words kept for testing."""
    return sample_scene(_KINDS[index % len(_KINDS)], seed, index, pairs="any" if index % 3 else "unseen")


@dataclass(frozen=True, slots=True)
class Targets:
    """What is right, for B pictures of at most N objects.

    `at_BN`: the cell of each object as row x columns + column, -1 where there is none; `numbers_BNK`: box (dx, dy, w,
    h) and colour; `categories_BNK` and `picture_BK`: the right class of each category, -1 where it has none.
    """

    at_BN: Tensor
    numbers_BNK: Tensor
    categories_BNK: Tensor
    picture_BK: Tensor

    def rows(self, indices: Tensor) -> "Targets":
        """Those of some pictures."""
        return Targets(
            self.at_BN[indices], self.numbers_BNK[indices], self.categories_BNK[indices], self.picture_BK[indices]
        )

    def to(self, device: torch.device) -> "Targets":
        """On another device."""
        return Targets(
            self.at_BN.to(device),
            self.numbers_BNK.to(device),
            self.categories_BNK.to(device),
            self.picture_BK.to(device),
        )


def targets_of(scenes: list[Scene]) -> Targets:
    """Targets of pictures of 128x128 px."""
    count = len(scenes)
    at = np.full((count, MAX_SUBJECTS), -1, np.int64)
    numbers = np.zeros((count, MAX_SUBJECTS, BOX + RGB), np.float32)
    categories = np.full((count, MAX_SUBJECTS, len(OBJECT_CATEGORIES)), -1, np.int64)
    picture = np.zeros((count, len(PICTURE_CATEGORIES)), np.int64)
    for row, scene in enumerate(scenes):
        seen = truth(scene, _SIDE_PX, _SIDE_PX)
        picture[row] = [names.index(seen.picture[name]) for name, names in PICTURE_CATEGORIES.items()]
        for number, one in enumerate(seen.objects):
            x, y = (min(max(value * _SIDE, 0.0), _SIDE - 1e-3) for value in one.center)
            at[row, number] = int(y) * _SIDE + int(x)
            left, top, right, bottom = one.box
            box = (x - int(x) - 0.5, y - int(y) - 0.5, right - left, bottom - top)
            numbers[row, number] = (*box, *srgb_of(one.hex))
            for column, (name, names) in enumerate(OBJECT_CATEGORIES.items()):
                if name in one.attributes:
                    categories[row, number, column] = names.index(one.attributes[name])
    return Targets(*(torch.from_numpy(array) for array in (at, numbers, categories, picture)))


def heat_map(at_BN: Tensor) -> Tensor:
    """(B, H, W): 1 at the objects' cells, falling off around them."""
    rows, columns = at_BN // _SIDE, at_BN % _SIDE
    grid = torch.arange(_SIDE, device=at_BN.device)
    distance = (grid[:, None] - rows[..., None, None]).square() + (grid - columns[..., None, None]).square()
    bumps = torch.exp(-distance / (2 * _HEAT_DEVIATION**2)) * (at_BN >= 0)[..., None, None]
    return bumps.amax(1)


def judge_losses(cells_BCHW: Tensor, picture_BC: Tensor, targets: Targets) -> dict[str, Tensor]:
    """Weighted terms: the focal loss of key points (Zhou et al., Objects as Points, 2019), boxes, colours, classes."""
    heat, wanted = cells_BCHW[:, 0].float(), heat_map(targets.at_BN)
    chance = heat.sigmoid().clamp(1e-4, 1 - 1e-4)
    peak = wanted >= 0.999
    hit = -((1 - chance) ** 2) * chance.log() * peak
    miss = -((1 - wanted) ** 4) * chance**2 * (1 - chance).log() * ~peak
    there = targets.at_BN >= 0
    count = there.sum().clamp(min=1)
    flat = cells_BCHW.flatten(2).float()
    index = targets.at_BN.clamp(min=0)[:, None].expand(-1, flat.shape[1], -1)
    answers = flat.gather(2, index).transpose(1, 2)[there]
    numbers, classes = targets.numbers_BNK[there], targets.categories_BNK[there]
    logits = split_by(OBJECT_CATEGORIES, answers[:, 1 + BOX + RGB :])
    objects = [
        F.cross_entropy(logits[name], classes[:, column], ignore_index=-1, reduction="sum")
        for column, name in enumerate(OBJECT_CATEGORIES)
    ]
    pictures = split_by(PICTURE_CATEGORIES, picture_BC.float())
    whole = [
        F.cross_entropy(pictures[name], targets.picture_BK[:, column]) for column, name in enumerate(PICTURE_CATEGORIES)
    ]
    terms = {
        "heat": (hit + miss).sum() / count,
        "box": (answers[:, 1 : 1 + BOX] - numbers[:, :BOX]).abs().sum() / count,
        "rgb": (answers[:, 1 + BOX : 1 + BOX + RGB] - numbers[:, BOX:]).abs().sum() / count,
        "objects": torch.stack(objects).sum() / count,
        "picture": torch.stack(whole).sum(),
    }
    return {name: _WEIGHTS[name] * term for name, term in terms.items()}


@dataclass(frozen=True, slots=True)
class JudgeBatch:
    """Images in [-1, 1] and what is right."""

    image_BCHW: Tensor
    targets: Targets


class JudgeModule(nn.Module):
    """The network and its losses."""

    def __init__(self) -> None:
        """An untrained network from torch's current seed."""
        super().__init__()
        self.network = JudgeNetwork()

    def forward(self, batch: JudgeBatch) -> dict[str, Tensor]:
        """Weighted terms of the loss."""
        outputs = self.network(batch.image_BCHW.contiguous(memory_format=torch.channels_last))
        return judge_losses(outputs.cells_BCHW, outputs.picture_BC, batch.targets)


class JudgeTask:
    """Batches of rendered pictures, some of them blurred or noisy as pictures out of a decoder are."""

    def __init__(self, recipe: Recipe, store: PictureStore, device: torch.device) -> None:
        """`store` holds the pictures of `judge_scene`; the last ones are held out."""
        self.recipe, self.store, self.device = recipe, store, device
        torch.manual_seed(recipe.seed)
        self.judge = JudgeModule()
        self.module: nn.Module = self.judge.to(device).to(memory_format=torch.channels_last)
        self.targets = targets_of([judge_scene(recipe.data.seed, index) for index in range(store.count)])

    def batch(self, step: int, rank: Rank) -> JudgeBatch:
        """This rank's pictures of the step."""
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
        count = self.recipe.optim.batch
        indices = torch.randint(self.store.count - _HELD_OUT, (count,), generator=generator)
        noise = torch.randn(count, 3, _SIDE_PX, _SIDE_PX, generator=generator)
        strength = 0.06 * torch.rand(count, 1, 1, 1, generator=generator).square()
        blur = 0.8 * (torch.rand(count, 1, 1, 1, generator=generator) - 0.4).clamp(min=0)
        mine = slice(rank.index, None, rank.count)
        image = self.store.images(indices[mine])
        blurred = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1)
        image = torch.lerp(image, blurred, blur[mine]) + strength[mine] * noise[mine]
        return JudgeBatch(image.to(self.device), self.targets.rows(indices[mine]).to(self.device))

    @torch.no_grad()
    def sample(self, path: Path, step: int) -> dict[str, float]:
        """How often everything about every held-out picture is right, and each attribute."""
        del path, step
        first = self.store.count - _HELD_OUT
        pixels = self.store.images(torch.arange(first, self.store.count)).add(1).mul(127.5).round().to(torch.uint8)
        scenes = [judge_scene(self.recipe.data.seed, index) for index in range(first, self.store.count)]
        network = JudgeNetwork()
        network.load_state_dict({name: tensor.cpu() for name, tensor in self.judge.network.state_dict().items()})
        return recognised(Judge(network).look(pixels.permute(0, 2, 3, 1)), [truth(scene) for scene in scenes])


def assemble_judge(
    recipe: Recipe, data: Path, device: torch.device, on_progress: Callable[[str, int, int], None]
) -> JudgeTask:
    """Render what is missing in `data` and build the task."""
    store = PictureStore(data / "pictures.bin", recipe.data.pictures, (_SIDE_PX, _SIDE_PX))

    def draw(first: int, count: int) -> Tensor:
        return render([judge_scene(recipe.data.seed, index) for index in range(first, first + count)], 128, 128)

    store.fill(draw, 64, lambda done, total: on_progress("pictures", done, total))
    task = JudgeTask(recipe, store, device)
    if recipe.start_from is not None:
        started = newest_checkpoint(Path(recipe.start_from).expanduser())
        task.judge.load_state_dict(read_tensors(started / "state.safetensors", "ema/"))
    return task


def export_judge(run: Path, target: Path) -> Path:
    """Write the newest averages of a judge's run to one file, in half precision. Raises `InvalidSettings`."""
    checkpoint = newest_checkpoint(run)
    if read_recipe(checkpoint).task is not Task.JUDGE:
        raise InvalidSettings(f"{run} has not trained a judge; expected the run of `licht train nano_judge`")
    tensors = read_tensors(checkpoint / "state.safetensors", "ema/network.")
    kept = {name: tensor.half() for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(kept, target)
    return target
