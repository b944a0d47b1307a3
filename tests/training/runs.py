"""Runs that are small enough for a test: a checkpoint of random networks, as training would have left it."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from licht.model.autoencoder import Autoencoder
from licht.recipes.nano import nano_autoencoder, nano_smoke
from licht.training.autoencoder import AutoencoderModule
from licht.training.build import autoencoder_config
from licht.training.config import CarryConfig, DataConfig, Networks, PolishConfig, Recipe, Source, Stream, Task
from licht.training.ema import EMA
from licht.training.flow import FlowNetworks
from licht.training.state import save_state
from licht.training.tokenizer import save_tokenizer, train_tokenizer

TINY = Networks(
    hidden_size=32,
    heads=2,
    depth=1,
    depth_single=1,
    tower_size=32,
    tower_heads=2,
    tower_kv_heads=1,
    vocab_size=400,
    text_length=24,
    vae_channels=(8, 8, 8, 8),
    vae_groups=2,
    z_channels=8,
)
CAPTIONS = ["a large red sphere on a gray floor", "a small blue cube on a teal floor"]


def alive(module: nn.Module, seed: int = 0) -> None:
    """Random weights everywhere, the zeros of an untrained network included."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)


def autoencoder_run(run: Path, networks: Networks = TINY, seed: int = 1, start_from: str | None = None) -> Recipe:
    recipe = replace(nano_autoencoder(), networks=networks, start_from=start_from)
    recipe = replace(recipe, data=replace(recipe.data, pictures=64))
    module = AutoencoderModule(Autoencoder(autoencoder_config(networks)), recipe.autoencoder)
    alive(module, seed)
    save_state(run, 3, module, EMA(module, 0.9), [], recipe, seconds=90.0)
    return recipe


def flow_run(
    run: Path,
    autoencoder: Path,
    task: Task = Task.FLOW,
    networks: Networks = TINY,
    start_from: str | None = None,
    teacher_from: str | None = None,
    critic_from: str | None = None,
    carry: CarryConfig | None = None,
    seed: int = 2,
) -> Recipe:
    recipe = replace(nano_smoke(), task=task, networks=networks, autoencoder_from=str(autoencoder))
    recipe = replace(recipe, start_from=start_from, teacher_from=teacher_from)
    recipe = replace(recipe, polish=PolishConfig(critic_from=critic_from), carry=carry or CarryConfig())
    module = FlowNetworks(networks, guidance_embed=task is Task.GUIDANCE)
    alive(module, seed)
    ema = EMA(module, 0.9)
    alive(module, seed + 1)  # the averages are what is exported, and differ from the weights
    save_state(run, 7, module, ema, [], recipe, seconds=600.0)
    save_tokenizer(train_tokenizer(CAPTIONS, networks.vocab_size), run / "tokenizer")
    return recipe


def tiny_flow(folder: Path, steps: int) -> Recipe:
    """A recipe whose data take seconds, and the autoencoder that it names."""
    autoencoder_run(folder / "autoencoder")
    stream = Stream("pictures", Source.PICTURE, ("one",), 16, 1.0, size_px=(64, 64), captions=2)
    recipe = nano_smoke()
    return replace(
        recipe,
        networks=TINY,
        autoencoder_from=str(folder / "autoencoder"),
        data=DataConfig(streams=(stream,)),
        optim=replace(recipe.optim, steps=steps, batch=4, warmup_steps=1),
    )
