"""A task that is small enough to train in a test, and a recipe for it."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from licht.training.config import OptimConfig, Recipe, Task
from licht.training.loop import Rank


class ToyModule(nn.Module):
    """A net with matrices inside and outside blocks, so that both optimisers are at work."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 8)
        self.layers = nn.ModuleList([nn.Linear(8, 8, bias=False)])
        self.outer = nn.Linear(8, 1)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        x, y = batch
        hidden = torch.tanh(self.layers[0](torch.tanh(self.inner(x))))
        return {"error": (self.outer(hidden) - y).square().mean()}


@dataclass
class ToyTask:
    """Rows from (seed, step); stops with KeyboardInterrupt before step `killed_at`, as a kill would."""

    recipe: Recipe
    killed_at: int | None = None

    def __post_init__(self) -> None:
        torch.manual_seed(self.recipe.seed)
        self.module: nn.Module = ToyModule()

    def batch(self, step: int, rank: Rank) -> tuple[Tensor, Tensor]:
        if step == self.killed_at:
            raise KeyboardInterrupt
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(self.recipe.optim.batch, 6, generator=generator)
        y = x[:, :1] * x[:, 1:2]
        return x[rank.index :: rank.count], y[rank.index :: rank.count]

    def sample(self, path: Path, step: int) -> dict[str, float]:
        return {"sampled_at": float(step)}


def toy_recipe(steps: int = 8, checkpoint_minutes: float = 0.0, seed: int = 0) -> Recipe:
    """Saves after every step unless told otherwise."""
    return Recipe(
        name="toy",
        task=Task.FLOW,
        hardware="any",
        optim=OptimConfig(steps=steps, batch=8, warmup_steps=2, adamw_lr=0.01, muon_lr=0.02, autocast=False),
        checkpoint_minutes=checkpoint_minutes,
        seed=seed,
    )
