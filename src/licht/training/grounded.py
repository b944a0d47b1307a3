"""Grounding: a layer in the middle learns to tell what will stand where.

Aligning a layer with the features of a vision model makes flow models learn sooner (REPA, arXiv 2410.06940). Rendered
pictures need no vision model: what each token of the clean picture shows is known. From the tokens of a noisy one a
linear map says, at a part of the depth, the kind, colour and material at each of its four latent positions, which letter
of text over the scene stands there, and how far the object in the token's middle reaches. The map is left behind after
training.

Shapes: B batch, L latent tokens, D width, H and W pixels.
"""

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from licht.core.errors import OutputFailed
from licht.training.config import Recipe, Stream
from licht.training.flow import FlowBatch, FlowNetworks, FlowTask, Sampler
from licht.training.loop import Rank
from licht.training.objectives import interpolate, velocity_loss
from licht.training.pictures import fill_missing, reserve
from licht.training.self_flow import Layer
from licht.training.semantic import CLASSES, POSITION_PX, UNKNOWN, class_loss, labels_of
from licht.training.store import StreamStore
from licht.training.tokenizer import CaptionEncoder
from licht.world.lettering import overlay_letters
from licht.world.maps import LETTERING, render_maps
from licht.world.scene import Scene

_DEPTH: Final = 0.5
_TOKEN_PX: Final = 2 * POSITION_PX
_POSITIONS: Final = 4
_REACH: Final = 4
LETTERS: Final = string.ascii_uppercase + string.digits
_TOLD: Final = (*CLASSES, len(LETTERS))
_KNOWN: Final = _POSITIONS * len(_TOLD) + _REACH
_FINEST: Final = 254
"""Reaches are kept as so many parts of the picture's width and height."""
_REACH_WEIGHT: Final = 4.0
"""A reach that is off by a tenth of the picture costs as much as a class that is right in two of three cases."""


def token_truth(scenes: list[Scene], width_px: int, height_px: int) -> Tensor:
    """uint8 (B, L, 20): four labels of each of a token's four latent positions; left, top, right, bottom of its object.

    The object is that in the token's middle, its reach that of what is seen of it.
    """
    fine_BHW = render_maps(scenes, width_px, height_px).instance_BHW
    labels = torch.cat([labels_of(scenes, fine_BHW), _letters(scenes, fine_BHW)], dim=3)
    rows, columns = height_px // _TOKEN_PX, width_px // _TOKEN_PX
    labels = labels.view(len(scenes), rows, 2, columns, 2, -1).transpose(2, 3).reshape(len(scenes), rows * columns, -1)
    middle_BL = fine_BHW[:, _TOKEN_PX // 2 :: _TOKEN_PX, _TOKEN_PX // 2 :: _TOKEN_PX].flatten(1)
    reach = torch.full((*middle_BL.shape, _REACH), UNKNOWN, dtype=torch.uint8)
    for row, scene in enumerate(scenes):
        for number in range(len(scene.subjects)):
            seen = fine_BHW[row] == number
            if bool(seen.any()):
                reach[row][middle_BL[row] == number] = _reach(seen)
    return torch.cat([labels, reach], dim=2)


def _letters(scenes: list[Scene], fine_BHW: Tensor) -> Tensor:
    """uint8 (B, H / 8, W / 8, 1): the letter of each latent position with any part of one: that nearest to its middle."""
    height, width = fine_BHW.shape[1:]
    found = torch.full((len(scenes), height // POSITION_PX, width // POSITION_PX, 1), UNKNOWN, dtype=torch.uint8)
    lettered = F.max_pool2d((fine_BHW == LETTERING).float(), POSITION_PX).bool()
    for row, scene in enumerate(scenes):
        if scene.lettering is None or not bool(lettered[row].any()):
            continue
        boxes = overlay_letters(scene.lettering, width, height)
        sides = torch.tensor([[box.left, box.top, box.right, box.bottom] for box in boxes])
        y, x = ((torch.nonzero(lettered[row]).T + 0.5) * POSITION_PX)[:, :, None]
        beside = (sides[:, 0] - x).clamp(min=0) + (x - sides[:, 2]).clamp(min=0)
        beyond = (sides[:, 1] - y).clamp(min=0) + (y - sides[:, 3]).clamp(min=0)
        numbers = torch.tensor([LETTERS.index(box.letter) for box in boxes], dtype=torch.uint8)
        found[row, lettered[row], 0] = numbers[(beside + beyond).argmin(1)]
    return found


def _reach(seen_HW: Tensor) -> Tensor:
    ends = []
    for axis, pixels in ((0, seen_HW.shape[1]), (1, seen_HW.shape[0])):
        along = torch.nonzero(seen_HW.any(axis))[:, 0]
        ends.append([int(along[0]) / pixels, (int(along[-1]) + 1) / pixels])
    (left, right), (top, bottom) = ends
    return (torch.tensor([left, top, right, bottom]) * _FINEST).round().to(torch.uint8)


class TruthStore:
    """What the targets of a stream show, prepared once and mapped."""

    def __init__(self, path: Path, stream: Stream) -> None:
        """Open the file, or create it empty."""
        self._stream, self._progress = stream, path.with_suffix(".done")
        shape = (stream.rows, stream.grid[0] * stream.grid[1], _KNOWN)
        try:
            if not path.is_file() or path.stat().st_size != int(np.prod(shape)):
                self._progress.unlink(missing_ok=True)
                reserve(path, int(np.prod(shape)))
            self._known = np.memmap(path, np.uint8, "r+", shape=shape)
        except OSError as error:
            raise OutputFailed(f"{path} cannot be written ({error}); free some space") from error

    def fill(
        self,
        scenes: Callable[[Stream, int, int], list[Scene]],
        chunk: int,
        on_progress: Callable[[str, int, int], None],
    ) -> None:
        """Label what is missing; goes on after an interruption."""

        def label(rows: slice) -> None:
            shown = scenes(self._stream, rows.start, rows.stop - rows.start)
            self._known[rows] = token_truth(shown, *self._stream.size_px).numpy()

        told = partial(on_progress, f"what stands where in {self._stream.name}")
        fill_missing(self._progress, self._stream.rows, chunk, label, told)

    def rows(self, captions: Tensor) -> Tensor:
        """uint8 (B, L, 20) of the rows whose captions are numbered `captions` (B,)."""
        return torch.from_numpy(self._known[captions.numpy() // self._stream.captions])


@dataclass(frozen=True, slots=True)
class GroundedBatch:
    """Rows of a flow batch, and what their pictures show, uint8 (B, L, 20)."""

    rows: FlowBatch
    truth_BLK: Tensor


class Grounded(nn.Module):
    """The networks and the map; `forward` is the loss."""

    def __init__(self, networks: FlowNetworks, weight: float) -> None:
        """Share the parameters of `networks`."""
        super().__init__()
        self.transformer, self.tower = networks.transformer, networks.tower
        self._networks = [networks]  # in a list, so that its parameters are not registered twice
        self.teller = nn.Linear(networks.transformer.config.hidden_size, _POSITIONS * sum(_TOLD) + _REACH)
        self.weight = weight

    def forward(self, batch: GroundedBatch) -> dict[str, Tensor]:
        """Mean squared error of the velocity, and the weighted errors of what was told."""
        rows, layer = batch.rows, Layer(self.transformer, _DEPTH)
        x_BLC, target_BLC = interpolate(rows.x0_BLC, rows.noise_BLC, rows.t_B)
        text = self.tower(rows.ids_BT, rows.attended_BT)
        velocity = self._networks[0].velocity_after(rows, text, x_BLC, rows.t_B, watch=layer)
        # normalised as for the last layer: in a trained network tokens have grown large here
        told = self.teller(F.layer_norm(layer.tokens.float(), layer.tokens.shape[-1:])).float()
        return {
            "velocity": velocity_loss(velocity, target_BLC).mean(),
            "grounded": self.weight * told_loss(told, batch.truth_BLK),
        }


def told_loss(told_BLK: Tensor, truth_BLK: Tensor) -> Tensor:
    """Cross-entropies of kind, colour, material and letter, and the mean absolute error of reaches, where there are any."""
    labels, ends = truth_BLK.split([_POSITIONS * len(_TOLD), _REACH], dim=2)
    logits, reach = told_BLK.split([_POSITIONS * sum(_TOLD), _REACH], dim=2)
    classes = class_loss(
        logits.unflatten(2, (_POSITIONS, -1)).permute(0, 3, 1, 2), labels.unflatten(2, (_POSITIONS, -1)), _TOLD
    )
    known = ends != UNKNOWN
    error = (reach - ends.float() / _FINEST).abs() * known
    reaches: Tensor = error.sum() / known.sum().clamp(min=1)
    return classes + _REACH_WEIGHT * reaches


class GroundedTask(FlowTask):
    """Batches of the joint objective with what their pictures show."""

    def __init__(
        self,
        recipe: Recipe,
        stores: Sequence[StreamStore],
        encoder: CaptionEncoder,
        device: torch.device,
        sampler: Sampler,
        truths: Mapping[str, TruthStore],
    ) -> None:
        """Build and initialise the networks from the recipe's seed. `truths` are by the names of streams."""
        super().__init__(recipe, stores, encoder, device, sampler)
        self.truths = truths
        self.module = Grounded(self.networks, recipe.flow.grounded).to(device)

    def batch(self, step: int, rank: Rank) -> GroundedBatch:
        """The rows of a flow batch with what they show."""
        pick = self.pick(step)
        mine = pick.captions[rank.index :: rank.count]
        truth = self.truths[pick.store.stream.name].rows(mine).to(self.device)
        return GroundedBatch(self.batch_of(pick, rank), truth)
