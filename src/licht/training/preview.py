"""Pictures during training: the same prompts and seeds every time, so that sheets can be compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from licht.model.autoencoder import Autoencoder
from licht.sampling.guidance import classifier_free
from licht.sampling.noise import initial_noise, tokens_to_grid
from licht.sampling.schedule import sigmas
from licht.sampling.solvers import euler
from licht.training.flow import FlowBatch, FlowNetworks, Grid
from licht.training.pictures import WriteSheet
from licht.training.tokenizer import CaptionEncoder


@dataclass(frozen=True, slots=True)
class Sampling:
    """How pictures are drawn: `guidance` None is one plain pass a step."""

    steps: int = 20
    guidance: float | None = 3.0


class Preview:
    """Draws fixed prompts with the current networks and writes a sheet."""

    def __init__(
        self,
        autoencoder: Autoencoder,
        encoder: CaptionEncoder,
        prompts: Sequence[str],
        write: WriteSheet,
        sampling: Sampling,
    ) -> None:
        """`prompts` are drawn at 128x128 with seeds 0, 1, 2, ..."""
        self.autoencoder, self.encoder, self.prompts, self.write = autoencoder, encoder, prompts, write
        self.sampling = sampling

    def __call__(self, networks: FlowNetworks, path: Path, step: int) -> dict[str, float]:
        """Write a sheet of all prompts. Returns no figures: judging is evaluation's business."""
        del step
        self.write(path, draw(networks, self.autoencoder, self.encoder, self.prompts, self.sampling), self.prompts)
        return {}


@torch.no_grad()
def draw(
    networks: FlowNetworks,
    autoencoder: Autoencoder,
    encoder: CaptionEncoder,
    prompts: Sequence[str],
    sampling: Sampling,
    grid: Grid = (8, 8),
) -> Tensor:
    """uint8 (B, H, W, 3): each prompt drawn with its own seed (its position)."""
    device = next(networks.parameters()).device
    channels = autoencoder.config.token_channels
    latents = torch.cat([initial_noise(seed, grid, channels) for seed in range(len(prompts))]).to(device)
    times = sigmas(grid[0] * grid[1], sampling.steps)
    final = go_on(networks, encoder, prompts, Latents(latents, grid), times, sampling.guidance)
    image = autoencoder.decode(tokens_to_grid(final, grid))
    return (image / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()


@dataclass(frozen=True, slots=True)
class Latents:
    """Tokens (B, L, C) of pictures that are `grid` tokens high and wide."""

    tokens_BLC: Tensor
    grid: Grid


@torch.no_grad()
def go_on(
    networks: FlowNetworks,
    encoder: CaptionEncoder,
    prompts: Sequence[str],
    begun: Latents,
    times: Sequence[float],
    guidance: float | None,
) -> Tensor:
    """Tokens (B, L, C) after the steps from the first of `times`, where `begun` stands, to the last.

    `guidance` None is one plain pass a step; networks that do not embed it are guided by two.
    """
    x_BLC, device = begun.tokens_BLC, begun.tokens_BLC.device
    embeds = networks.transformer.guidance_in is not None
    twice = guidance is not None and not embeds
    texts = [*prompts, *([""] * len(prompts) if twice else [])]
    ids = torch.from_numpy(encoder(texts)[0].astype("int64")).to(device)
    batch = FlowBatch(x_BLC, x_BLC, x_BLC.new_zeros(len(ids)), begun.grid, ids, encoder.attended(ids), None, ())
    scale = torch.full((len(ids),), 1.0 if guidance is None else guidance, device=device) if embeds else None
    text = networks.tower(batch.ids_BT, batch.attended_BT)

    def velocity(x_BLC: Tensor, t: float) -> Tensor:
        t_B = torch.full((len(ids),), t, device=device)
        found = networks.velocity_after(batch, text, x_BLC.repeat(2, 1, 1) if twice else x_BLC, t_B, scale).float()
        if not twice or guidance is None:
            return found
        conditional, unconditional = found.chunk(2)
        return classifier_free(unconditional, conditional, guidance)

    *_, final = euler(velocity, x_BLC, times)
    return final
