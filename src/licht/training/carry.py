"""Task arithmetic: what training has changed in one model, carried over to another of the same descent.

A base that goes on learning leaves behind what was distilled from it. Such models differ by so little that differences of
their weights may be added (Ilharco et al., 2023, https://arxiv.org/abs/2212.04089): a distilled model plus what the base
has learned since is where a distillation begins anew, much nearer to its end than the base itself.
"""

from collections.abc import Mapping
from pathlib import Path

import torch

from licht.core.errors import InvalidSettings
from licht.training.config import Recipe
from licht.training.flow import FlowNetworks
from licht.training.state import newest_checkpoint
from licht.training.trained import named_folder, open_networks


def check_carried(recipe: Recipe, known: Mapping[str, Path]) -> None:
    """Raises `InvalidSettings` where what is to be carried over is neither a model folder nor a run with a checkpoint."""
    for name in (recipe.carry.learned_by, recipe.carry.since):
        if name is not None and not ((folder := named_folder(name, known)) / "transformer").is_dir():
            newest_checkpoint(folder)


def open_start(recipe: Recipe, known: Mapping[str, Path]) -> FlowNetworks:
    """The networks that `recipe` starts from, with what others have learned if it carries that over; on the CPU.

    Raises `InvalidSettings` where `start_from` is not named, or networks have other sizes than the recipe says.
    """
    if recipe.start_from is None:
        raise InvalidSettings(f"recipe {recipe.name} needs start_from: a run or a model folder", field="start_from")
    start = open_networks(named_folder(recipe.start_from, known), recipe.networks)
    if recipe.carry.learned_by is not None and recipe.carry.since is not None:
        later, earlier = (
            open_networks(named_folder(name, known), recipe.networks)
            for name in (recipe.carry.learned_by, recipe.carry.since)
        )
        carry(start, later, earlier)
    return start


@torch.no_grad()
def carry(start: FlowNetworks, later: FlowNetworks, earlier: FlowNetworks) -> None:
    """Add `later - earlier` to `start`. What only `start` has, such as an embedding of guidance, stays as it is."""
    after, before = later.state_dict(), earlier.state_dict()
    for name, tensor in start.state_dict().items():
        if name in after and name in before:
            tensor.add_(after[name] - before[name])
