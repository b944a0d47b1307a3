"""A critic: it looks at latents and tells what they show, and whether they come from a true picture.

What it tells is what grounding asks a layer to tell (`training/truth.py`), from clean latents instead of noisy ones.
It serves training only; what is released is measured by the judge, which looks at pixels and knows nothing of it.

Shapes: B batch, L latent tokens, K entries told of a token, C channels, H and W latent positions.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from licht.model.autoencoder import unpatchify
from licht.sampling.noise import tokens_to_grid
from licht.training.flow import Grid
from licht.training.grounded import POSITION_LOGITS, TOKEN_LOGITS, KnownTask, told_loss
from licht.training.loop import Rank
from licht.training.truth import POSITIONS

_FINE, _MIDDLE, _COARSE, _GROUPS = 64, 128, 192, 8
NOISE: Final = 0.3
"""Most noise on the latents that a critic sees, in standard deviations. It must not look for what decodes to nothing."""


class _Residual(nn.Module):
    """Two convolutions beside a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.GroupNorm(_GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)),
            *(nn.GroupNorm(_GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out: Tensor = x_BCHW + self.layers(x_BCHW)
        return out


@dataclass(frozen=True, slots=True)
class Sight:
    """`told_BLK` as in `grounded.told_loss`; `true_BHW` logits: how much each latent position looks like a true one.

    `features` are maps (B, channels, rows, columns) on the way, by which pictures can be compared.
    """

    told_BLK: Tensor
    true_BHW: Tensor
    features: tuple[Tensor, ...]


class Critic(nn.Module):
    """A pyramid of three resolutions over latent positions."""

    def __init__(self, channels: int) -> None:
        """`channels` of a latent token; 2.4 M parameters."""
        super().__init__()
        self.stem = nn.Conv2d(channels // POSITIONS, _FINE, 3, padding=1)
        self.fine = nn.Sequential(*(_Residual(_FINE) for _ in range(3)))
        self.down = nn.Conv2d(_FINE, _MIDDLE, 3, stride=2, padding=1)
        self.middle = nn.Sequential(*(_Residual(_MIDDLE) for _ in range(3)))
        self.down_again = nn.Conv2d(_MIDDLE, _COARSE, 3, stride=2, padding=1)
        self.coarse = nn.Sequential(*(_Residual(_COARSE) for _ in range(2)))
        self.from_coarse = nn.Conv2d(_COARSE, _MIDDLE, 1)
        self.token = _Residual(_MIDDLE)
        self.from_middle = nn.Conv2d(_MIDDLE, _FINE, 1)
        self.position = nn.Sequential(_Residual(_FINE), _Residual(_FINE))
        self.of_token = nn.Conv2d(_MIDDLE, TOKEN_LOGITS, 1)
        self.of_position = nn.Conv2d(_FINE, POSITION_LOGITS // POSITIONS, 1)
        self.of_truth = nn.Conv2d(_FINE, 1, 1)

    def forward(self, latents_BLC: Tensor, grid: Grid) -> Sight:
        """What clean latents (B, L, C) show; `grid` is (rows, columns) of tokens."""
        fine = self.fine(self.stem(unpatchify(tokens_to_grid(latents_BLC, grid))))
        middle = self.middle(self.down(fine))
        coarse = self.coarse(self.down_again(middle))
        token = self.token(middle + _enlarged(self.from_coarse(coarse), middle))
        position = self.position(fine + _enlarged(self.from_middle(token), fine))
        rows, columns = grid
        of_position = self.of_position(position).unflatten(3, (columns, 2)).unflatten(2, (rows, 2))
        told = torch.cat(
            [
                of_position.permute(0, 2, 4, 3, 5, 1).reshape(len(latents_BLC), rows * columns, -1),
                _tokens(self.of_token(token)),
            ],
            dim=2,
        )
        return Sight(told.float(), self.of_truth(position)[:, 0].float(), (fine, token, position))


def _enlarged(x_BCHW: Tensor, like_BCHW: Tensor) -> Tensor:
    return F.interpolate(x_BCHW, size=like_BCHW.shape[2:])


def _tokens(x_BCHW: Tensor) -> Tensor:
    return x_BCHW.flatten(2).transpose(1, 2)


def unlike(ours: Sight, theirs: Sight) -> Tensor:
    """Mean absolute difference of features of unit length at every place, as in LPIPS (arXiv 1801.03924)."""
    pairs = zip(ours.features, theirs.features, strict=True)
    return torch.stack([(_unit(a) - _unit(b)).abs().sum(1).mean() for a, b in pairs]).mean()


def _unit(x_BCHW: Tensor) -> Tensor:
    return F.normalize(x_BCHW.float(), dim=1)


@dataclass(frozen=True, slots=True)
class CriticBatch:
    """True latents, what they show, and the noise on them."""

    x0_BLC: Tensor
    truth_BLK: Tensor
    noise_BLC: Tensor
    grid: Grid


class Telling(nn.Module):
    """A critic that learns what true latents show; `forward` is the loss."""

    def __init__(self, critic: Critic) -> None:
        """Train `critic`."""
        super().__init__()
        self.critic = critic
        critic.of_truth.requires_grad_(False)  # until there is something untrue to be seen

    def forward(self, batch: CriticBatch) -> dict[str, Tensor]:
        """The errors of what it tells."""
        told = self.critic(batch.x0_BLC + batch.noise_BLC, batch.grid).told_BLK
        return {"told": told_loss(told, batch.truth_BLK)}


class CriticTask(KnownTask):
    """True latents of the streams, by their weights."""

    def learner(self) -> nn.Module:
        """A critic from the recipe's seed."""
        return Telling(Critic(4 * self.recipe.networks.z_channels))

    def batch(self, step: int, rank: Rank) -> CriticBatch:
        """Rows of one stream with what they show."""
        pick = self.pick(step)
        rows = self.batch_of(pick, rank)
        truth = self.truth_of(pick, rank)
        # of a row its noise for the flow serves as well; its time says how much of it
        noise = NOISE * rows.t_B.view(-1, 1, 1) * rows.noise_BLC
        return CriticBatch(rows.x0_BLC, truth, noise, rows.grid)

    def sample(self, path: Path, step: int) -> dict[str, float]:
        """A critic draws nothing."""
        del path, step
        return {}
