"""Trained networks as they are to be used: the averages of a run, or the parts of a model folder."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from licht.checkpoint.folder import read_folder
from licht.checkpoint.load import Placement, load_autoencoder, load_tower, load_transformer
from licht.checkpoint.reader import open_source, read_json
from licht.checkpoint.save import official_tensors, save_tensors
from licht.core.errors import InvalidSettings
from licht.model.autoencoder import Autoencoder
from licht.quant.linear import QuantisedLinear, StackedLayers
from licht.training.autoencoder import measure_statistics
from licht.training.build import autoencoder_config
from licht.training.config import Networks, Recipe, Task
from licht.training.files import not_written, weights_digest
from licht.training.flow import FlowNetworks
from licht.training.grow import deepened
from licht.training.rendered import mixed_pictures
from licht.training.state import checkpoints, newest_checkpoint, read_recipe, read_tensors

_STATISTICS_PICTURES, _AT_ONCE = 1024, 32


def named_folder(name: str, known: Mapping[str, Path]) -> Path:
    """The folder that a recipe names: a model that is known by name, or a path."""
    return known.get(name) or Path(name).expanduser()


def autoencoder_folder(recipe: Recipe, known: Mapping[str, Path]) -> Path:
    """Run or model folder with the autoencoder of a recipe: as it says, else that of the networks it starts from.

    Raises `InvalidSettings` where neither is named.
    """
    if recipe.autoencoder_from is not None:
        return named_folder(recipe.autoencoder_from, known)
    if recipe.start_from is None:
        raise InvalidSettings(f"recipe {recipe.name} needs autoencoder_from: a model folder or an autoencoder's run")
    start = named_folder(recipe.start_from, known)
    if (start / "vae").is_dir():
        return start
    return autoencoder_folder(read_recipe(newest_checkpoint(start)), known)


def open_networks(folder: Path, networks: Networks) -> FlowNetworks:
    """Tower and transformer of a model folder, or the newest averages of a run; float32 on the CPU.

    Quantised matrices are dequantised. A transformer with fewer blocks than `networks` gets new ones that begin without
    effect (`grow.deepened`).
    Raises `InvalidSettings` if they have not the sizes of `networks` otherwise.
    """
    if (folder / "transformer").is_dir():
        tensors = _folder_tensors(folder)
    else:
        every = read_tensors(newest_checkpoint(folder) / "state.safetensors", "ema/")
        # what else there is served training only
        tensors = {name: value for name, value in every.items() if name.startswith(("transformer.", "tower."))}
    tensors = deepened(tensors, networks.depth, networks.depth_single)
    embeds = any(name.startswith("transformer.guidance_in.") for name in tensors)
    found = FlowNetworks(networks, guidance_embed=embeds)
    wanted = {name: tuple(tensor.shape) for name, tensor in found.state_dict().items()}
    differing = {name for name, tensor in tensors.items() if wanted.get(name) != tuple(tensor.shape)}
    differing |= wanted.keys() - tensors.keys()
    if differing:
        raise InvalidSettings(
            f"{folder} has other networks than the recipe says, for example {min(differing)}; "
            "start from networks of the same sizes"
        )
    found.load_state_dict(tensors)
    return found


def _folder_tensors(folder: Path) -> dict[str, Tensor]:
    files, placement = read_folder(folder), Placement(torch.device("cpu"), torch.float32)
    transformer = load_transformer(files.transformer, placement, files.transformer_config)
    tower = load_tower(files.tower, placement, files.variant.text)
    tensors = {f"transformer.{name}": tensor for name, tensor in _plain_tensors(transformer).items()}
    return tensors | {f"tower.{name}": tensor for name, tensor in _plain_tensors(tower).items()}


def _plain_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Its weights by official name; quantised matrices are dequantised."""
    tensors, quantised = official_tensors(network), (QuantisedLinear, StackedLayers)
    small = {name: layer for name, layer in network.named_modules() if isinstance(layer, quantised)}
    stored = tuple(f"{name}." for name in small)
    plain = {name: tensor for name, tensor in tensors.items() if not name.startswith(stored)}
    # what lies in a stack of layers is part of its matrix
    return plain | {f"{name}.weight": layer.weight for name, layer in small.items() if not name.startswith(stored)}


def fill(networks: FlowNetworks, start: FlowNetworks) -> None:
    """Give `networks` the weights of `start`. A guidance embedding that `start` lacks begins with no effect.

    Raises `InvalidSettings` if `start` embeds its guidance and `networks` has no place for that.
    """
    ours, theirs = networks.transformer.guidance_in, start.transformer.guidance_in
    if ours is None and theirs is not None:
        raise InvalidSettings(
            "these networks cannot start from some that embed their guidance; start from a base model"
        )
    tensors = {name: tensor.to(next(networks.parameters()).device) for name, tensor in start.state_dict().items()}
    networks.load_state_dict(tensors, strict=False)
    if ours is not None and theirs is None:
        nn.init.zeros_(ours.out_layer.weight)


def fill_critic(critic: nn.Module, run: Path) -> None:
    """Give `critic` the averaged weights of that in `run`. Raises `InvalidSettings` for a run without a like one."""
    tensors = read_tensors(newest_checkpoint(run) / "state.safetensors", "ema/critic.")
    wanted = {name: tuple(tensor.shape) for name, tensor in critic.state_dict().items()}
    if wanted != {name: tuple(tensor.shape) for name, tensor in tensors.items()}:
        raise InvalidSettings(f"{run} has no critic of these latents; train one with nano_critic")
    critic.load_state_dict(tensors)


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


def latents_digest(autoencoder: Autoencoder) -> str:
    """The same for autoencoders that make the same latents of a picture, however they decode them."""
    return weights_digest(nn.ModuleList([autoencoder.encoder, autoencoder.bn]))


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
    if recipe.autoencoder.decoder_only:
        return autoencoder  # the latents are those that it started from, and so are their statistics
    kept = checkpoint / "statistics.safetensors"
    statistics = dict(autoencoder.bn.named_buffers())
    if kept.is_file():
        for name, value in read_tensors(kept).items():
            statistics[name].copy_(value)
    else:
        measure_statistics(autoencoder, _pictures(recipe))
        _keep({name: statistics[name] for name in ("running_mean", "running_var")}, kept)
    return autoencoder


def _keep(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a file that appears under its name only when it is complete. Raises `OutputFailed`."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        save_tensors(temporary, tensors)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise not_written(path, error) from error


def _pictures(recipe: Recipe) -> Iterator[Tensor]:
    """Batches of the pictures that the run was trained on."""
    render = mixed_pictures(recipe.data.seed)
    for first in range(0, min(recipe.data.pictures, _STATISTICS_PICTURES), _AT_ONCE):
        count = min(_AT_ONCE, recipe.data.pictures - first)
        yield render(first, count).permute(0, 3, 1, 2).float() / 127.5 - 1
