"""Grounding: a layer in the middle learns to tell what will stand where.

Aligning a layer with the features of a vision model makes flow models learn sooner (REPA, arXiv 2410.06940). Rendered
pictures need no vision model: what each token of the clean picture shows is known (`training/truth.py`). From the tokens
of a noisy one a linear map tells it, at a part of the depth. The map is left behind after training.

Shapes: B batch, L latent tokens, K entries of a token, D width.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from licht.training.config import FlowLoss, Recipe
from licht.training.flow import FlowBatch, FlowNetworks, FlowTask, Pick, Sampler
from licht.training.loop import Rank
from licht.training.objectives import interpolate, velocity_loss
from licht.training.self_flow import Layer
from licht.training.semantic import KINDS, UNKNOWN, class_loss
from licht.training.store import StreamStore
from licht.training.tokenizer import CaptionEncoder
from licht.training.truth import (
    COLORS,
    FINEST,
    OBJECT_CLASSES,
    POSITION_CLASSES,
    POSITIONS,
    REACH,
    SCENE_CLASSES,
    TruthStore,
)

_DEPTH: Final = 0.5
_TOKEN_CLASSES: Final = (*OBJECT_CLASSES, *SCENE_CLASSES)
_NUMBERS: Final = REACH + COLORS
POSITION_LOGITS: Final = POSITIONS * sum(POSITION_CLASSES)
TOKEN_LOGITS: Final = sum(_TOKEN_CLASSES) + _NUMBERS
_NUMBERS_WEIGHT: Final = 4.0
"""A reach that is off by a tenth of the picture costs as much as a class that is right in two of three cases."""


@dataclass(frozen=True, slots=True)
class GroundedBatch:
    """Rows of a flow batch, and what their pictures show, uint8 (B, L, K)."""

    rows: FlowBatch
    truth_BLK: Tensor


class Grounded(nn.Module):
    """The networks and, where they are grounded, the map; `forward` is the loss."""

    def __init__(self, networks: FlowNetworks, loss: FlowLoss) -> None:
        """Share the parameters of `networks`."""
        super().__init__()
        self.transformer, self.tower = networks.transformer, networks.tower
        self._networks = [networks]  # in a list, so that its parameters are not registered twice
        size = networks.transformer.config.hidden_size
        self.teller = nn.Linear(size, POSITION_LOGITS + TOKEN_LOGITS) if loss.grounded else None
        self.loss = loss

    def forward(self, batch: GroundedBatch) -> dict[str, Tensor]:
        """Mean squared error of the velocity, and the weighted errors of what was told."""
        rows, watch = batch.rows, None if self.teller is None else Layer(self.transformer, _DEPTH)
        x_BLC, target_BLC = interpolate(rows.x0_BLC, rows.noise_BLC, rows.t_B)
        text = self.tower(rows.ids_BT, rows.attended_BT)
        velocity = self._networks[0].velocity_after(rows, text, x_BLC, rows.t_B, watch=watch)
        weight_BL = 1 + self.loss.objects * shows_something(batch.truth_BLK) if self.loss.objects else None
        terms = {"velocity": velocity_loss(velocity, target_BLC, weight_BL).mean()}
        if self.teller is None or watch is None:
            return terms
        # normalised as for the last layer: in a trained network tokens have grown large here
        told = self.teller(F.layer_norm(watch.tokens.float(), watch.tokens.shape[-1:])).float()
        return {**terms, "grounded": self.loss.grounded * told_loss(told, batch.truth_BLK)}


def shows_something(truth_BLK: Tensor) -> Tensor:
    """(B, L): 1 where any of a token's positions shows more than the floor, else 0."""
    every = len(POSITION_CLASSES)
    kinds = truth_BLK[..., : POSITIONS * every : every]
    return ((kinds != KINDS.index("floor")) & (kinds != UNKNOWN)).any(2).float()


def told_loss(told_BLK: Tensor, truth_BLK: Tensor) -> Tensor:
    """Cross-entropies of all classes, and the mean absolute errors of reaches and colours, where there are any.

    `told_BLK` holds logits of each position's classes, then of the token's, then numbers.
    """
    positions, tokens, numbers = truth_BLK.split([POSITIONS * len(POSITION_CLASSES), len(_TOKEN_CLASSES), _NUMBERS], 2)
    at_positions, at_token, told = told_BLK.split([POSITION_LOGITS, sum(_TOKEN_CLASSES), _NUMBERS], dim=2)
    classes = class_loss(
        at_positions.unflatten(2, (POSITIONS, -1)).permute(0, 3, 1, 2),
        positions.unflatten(2, (POSITIONS, -1)),
        POSITION_CLASSES,
    ) + class_loss(at_token.transpose(1, 2)[..., None], tokens[:, :, None], _TOKEN_CLASSES)
    for told_of, true_of in zip(told.split([REACH, COLORS], 2), numbers.split([REACH, COLORS], 2), strict=True):
        known = true_of != UNKNOWN
        error = (told_of - true_of.float() / FINEST).abs() * known
        classes = classes + _NUMBERS_WEIGHT * error.sum() / known.sum().clamp(min=1)
    return classes


class KnownTask(FlowTask, ABC):
    """Batches of the joint objective, and what their pictures show."""

    def __init__(
        self,
        recipe: Recipe,
        stores: Sequence[StreamStore],
        encoder: CaptionEncoder,
        device: torch.device,
        sampler: Sampler,
        truths: Mapping[str, TruthStore],
    ) -> None:
        """Build and initialise everything from the recipe's seed. `truths` are by the names of streams."""
        super().__init__(recipe, stores, encoder, device, sampler)
        self.truths = truths
        self.module = self.learner().to(device)

    @abstractmethod
    def learner(self) -> nn.Module:
        """What learns: a module whose forward is the loss; `networks` are built already."""

    def truth_of(self, pick: Pick, rank: Rank) -> Tensor:
        """What this rank's rows of what was picked show, uint8 (B, L, K)."""
        mine = pick.captions[rank.rows]
        return self.truths[pick.store.stream.name].rows(mine).to(self.device)


class GroundedTask(KnownTask):
    """The networks with a map that tells what their pictures show."""

    def learner(self) -> nn.Module:
        """The networks and the map."""
        return Grounded(self.networks, self.recipe.flow)

    def batch(self, step: int, rank: Rank) -> GroundedBatch:
        """The rows of a flow batch with what they show."""
        pick = self.pick(step)
        truth = self.truth_of(pick, rank)
        return GroundedBatch(self.batch_of(pick, rank), truth)
