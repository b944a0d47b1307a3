"""Polishing: a few-step model learns from true pictures, by the eyes of a critic, what its teacher could not show it.

The model starts from noise, or from a true picture with the noise of one of its times, and goes to the end as it does in
use. A critic then compares: it learns to tell latents of true pictures from those, and the model to pass for true
(relativistic pairing, Jolicoeur-Martineau, arXiv 1807.00734; in latents, as in LADD, arXiv 2403.12015). Where the start was a
true picture, what it showed is known, and the critic must be able to tell it of what was made.

Shapes: B batch, L latent tokens, T text tokens, C channels, K entries told of a token, H and W latent positions.
"""

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from licht.training.config import Recipe
from licht.training.critic import NOISE, Critic, Sight, unlike
from licht.training.distil import step_times
from licht.training.draws import Purpose, generator_of
from licht.training.flow import FlowBatch, FlowNetworks, Grid
from licht.training.grounded import KnownTask, told_loss
from licht.training.loop import Rank
from licht.training.objectives import interpolate

_TRUSTED_AFTER: Final = 100
_NUDGE: Final = 0.1
"""Deviation of the noise that must not change the critic's mind (an approximate R1, arXiv 2501.08316)."""


@dataclass(frozen=True, slots=True)
class PolishBatch:
    """Rows of a flow batch, what their pictures show, and what the critic is disturbed by."""

    rows: FlowBatch
    truth_BLK: Tensor
    start: int
    """Which of its steps the model begins with, from 0, which is at noise."""
    veil_BLC: Tensor
    nudge_BLC: Tensor
    trust: float
    """How much of the critic's doubts counts, up to 1: at first it has none that mean anything."""


class Polish(nn.Module):
    """The networks and their critic, which learn at the same time; `forward` is the loss of both."""

    def __init__(self, recipe: Recipe, networks: FlowNetworks, critic: Critic) -> None:
        """Share the parameters of `networks`; the tower stays as it is."""
        super().__init__()
        self.transformer, self.tower, self.critic = networks.transformer, networks.tower, critic
        self._networks = [networks]  # in a list, so that its parameters are not registered twice
        self.tower.requires_grad_(False)
        self.polish, self.steps = recipe.polish, recipe.distil.steps

    def forward(self, batch: PolishBatch) -> dict[str, Tensor]:
        """What the model lacks in the critic's eyes, and what the critic has not seen."""
        rows, weights = batch.rows, self.polish
        made_BLC = self._made(batch)
        seen = self.critic(torch.cat([rows.x0_BLC, made_BLC.detach()]) + batch.veil_BLC.repeat(2, 1, 1), rows.grid)
        mine = self._through_frozen_critic(made_BLC + batch.veil_BLC, rows.grid)
        terms = self._critic_terms(batch, seen)
        true_BHW = _first_half(seen).true_BHW
        terms["fooled"] = batch.trust * weights.adversarial * F.softplus(true_BHW - mine.true_BHW).mean()
        # from noise alone another picture comes, of which nothing is known
        paired = float(batch.start > 0)
        terms["shown"] = paired * weights.shown * told_loss(mine.told_BLK, batch.truth_BLK)
        # nearly as much holds for its outlines once little noise is left
        likely, certain = float(batch.start >= self.steps - 2), float(batch.start == self.steps - 1)
        terms["unlike"] = likely * weights.unlike * unlike(mine, _first_half(seen))
        terms["error"] = certain * weights.error * (made_BLC.float() - rows.x0_BLC).square().mean()
        return terms

    def _made(self, batch: PolishBatch) -> Tensor:
        """Where the model comes to; gradients reach back over the last `tail` of its steps."""
        rows = batch.rows
        with torch.no_grad():
            text = self.tower(rows.ids_BT, rows.attended_BT)
        times = [each[0] for each in step_times(rows.x0_BLC.shape[1], self.steps, 1)] + [0.0]
        x_BLC = rows.noise_BLC
        if batch.start:
            x_BLC, _ = interpolate(rows.x0_BLC, rows.noise_BLC, torch.full_like(rows.t_B, times[batch.start]))
        networks = self._networks[0]
        cache = networks.cached(rows)
        for step in range(batch.start, self.steps):
            with torch.set_grad_enabled(step >= self.steps - self.polish.tail):
                t_B = torch.full_like(rows.t_B, times[step])
                velocity = networks.velocity_after(rows, text, x_BLC, t_B, cache=cache).float()
                x_BLC = x_BLC + (times[step + 1] - times[step]) * velocity
        return x_BLC

    def _critic_terms(self, batch: PolishBatch, seen: Sight) -> dict[str, Tensor]:
        """What the critic lacks that has `seen` true latents and, after them, as many that were made."""
        true_BHW, made_BHW = seen.true_BHW.chunk(2)
        disturbed_BLC = batch.rows.x0_BLC + batch.veil_BLC + batch.nudge_BLC
        nudged_BHW = self.critic(disturbed_BLC, batch.rows.grid).true_BHW
        return {
            "told": told_loss(seen.told_BLK.chunk(2)[0], batch.truth_BLK),
            "told_apart": F.softplus(made_BHW - true_BHW).mean(),
            "steady": self.polish.steady * (nudged_BHW - true_BHW).square().mean(),
        }

    def _through_frozen_critic(self, latents_BLC: Tensor, grid: Grid) -> Sight:
        """The critic's sight; gradients go through it and not into it."""
        weights = {name: value.detach() for name, value in self.critic.named_parameters()}
        sight: Sight = functional_call(self.critic, weights, (latents_BLC, grid))
        return sight


def _first_half(seen: Sight) -> Sight:
    """What is seen of the first half of a batch, as it is: no gradients go back."""
    halves = [each.detach().chunk(2)[0] for each in (seen.told_BLK, seen.true_BHW, *seen.features)]
    return Sight(halves[0], halves[1], tuple(halves[2:]))


class PolishTask(KnownTask):
    """A flow task whose batches go to a model and its critic; both are to be filled by whoever assembles the task."""

    def learner(self) -> nn.Module:
        """The model with a critic from the recipe's seed."""
        self.critic = Critic(4 * self.recipe.networks.z_channels)
        return Polish(self.recipe, self.networks, self.critic)

    def batch(self, step: int, rank: Rank) -> PolishBatch:
        """The rows of a flow batch with what they show, where the step starts and what disturbs the critic."""
        pick = self.pick(step)
        mine = rank.rows
        truth = self.truth_of(pick, rank)
        rows = self.batch_of(pick, rank)
        generator = generator_of(self.recipe, step, Purpose.BESIDE)
        # later starts are more frequent: they cost less, and settle what was wanting most
        chances = torch.arange(1.0, self.recipe.distil.steps + 1)
        start = int(torch.multinomial(chances, 1, generator=generator))
        count, shape = self.recipe.optim.batch, rows.x0_BLC.shape[1:]
        strength = NOISE * torch.rand(count, 1, 1, generator=generator)
        veil = strength * torch.randn(count, *shape, generator=generator)
        nudge = _NUDGE * torch.randn(count, *shape, generator=generator)
        return PolishBatch(
            rows=rows,
            truth_BLK=truth,
            start=start,
            veil_BLC=veil[mine].to(self.device),
            nudge_BLC=nudge[mine].to(self.device),
            trust=min(1.0, step / _TRUSTED_AFTER),
        )
