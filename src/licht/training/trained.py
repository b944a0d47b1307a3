"""Trained networks as they are to be used: the averages of a run, or the parts of a model folder."""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from licht.checkpoint.load import Placement, load_autoencoder
from licht.checkpoint.reader import open_source, read_json
from licht.core.errors import InvalidSettings
from licht.model.autoencoder import Autoencoder
from licht.training.autoencoder import measure_statistics
from licht.training.build import autoencoder_config
from licht.training.config import Recipe, Task
from licht.training.rendered import mixed_pictures
from licht.training.state import checkpoints, newest_checkpoint, read_recipe, read_tensors

_STATISTICS_PICTURES, _AT_ONCE = 1024, 32


def open_autoencoder(folder: Path) -> Autoencoder:
    """A trained autoencoder, float32 on the CPU: the `vae/` of a model folder, or the newest average of a run.

    Raises `InvalidSettings` if the folder holds neither.
    """
    if (folder / "vae").is_dir():
        placement = Placement(torch.device("cpu"), torch.float32)
        return load_autoencoder(open_source(folder / "vae"), placement, read_json(folder / "vae" / "config.json"))
    if not checkpoints(folder):
        raise InvalidSettings(f"{folder} holds no vae/ and no checkpoint; train an autoencoder there first")
    return trained_autoencoder(folder)


def trained_autoencoder(run: Path) -> Autoencoder:
    """The newest average of an autoencoder's run, with the statistics of its latents measured.

    The statistics are kept beside the checkpoint. Raises `InvalidSettings` for another kind of run.
    """
    checkpoint = newest_checkpoint(run)
    recipe = read_recipe(checkpoint)
    if recipe.task is not Task.AUTOENCODER:
        raise InvalidSettings(f"{run} has trained {recipe.task}; expected the run of an autoencoder")
    autoencoder = Autoencoder(autoencoder_config(recipe.networks)).eval().requires_grad_(False)
    autoencoder.load_state_dict(read_tensors(checkpoint / "state.safetensors", "ema/autoencoder."))
    kept = checkpoint / "statistics.safetensors"
    statistics = dict(autoencoder.bn.named_buffers())
    if kept.is_file():
        for name, value in read_tensors(kept).items():
            statistics[name].copy_(value)
    else:
        measure_statistics(autoencoder, _pictures(recipe))
        save_file({name: statistics[name] for name in ("running_mean", "running_var")}, kept)
    return autoencoder


def _pictures(recipe: Recipe) -> Iterator[Tensor]:
    """Batches of the pictures that the run was trained on."""
    render = mixed_pictures(recipe.data.seed)
    for first in range(0, min(recipe.data.pictures, _STATISTICS_PICTURES), _AT_ONCE):
        count = min(_AT_ONCE, recipe.data.pictures - first)
        yield render(first, count).permute(0, 3, 1, 2).float() / 127.5 - 1
