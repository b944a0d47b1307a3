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
from licht.training.flow import FlowBatch, FlowNetworks
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
    grid: tuple[int, int] = (8, 8),
) -> Tensor:
    """uint8 (B, H, W, 3): each prompt drawn with its own seed (its position)."""
    device = next(networks.parameters()).device
    channels = autoencoder.config.token_channels
    latents = torch.cat([initial_noise(seed, grid, channels) for seed in range(len(prompts))]).to(device)
    embeds = networks.transformer.guidance_in is not None
    twice = sampling.guidance is not None and not embeds
    ids = torch.from_numpy(encoder([*prompts, *([""] * len(prompts) if twice else [])])[0].astype("int64")).to(device)
    batch = FlowBatch(latents, latents, latents.new_zeros(len(ids)), grid, ids, encoder.attended(ids), None, ())
    scale = torch.full((len(ids),), sampling.guidance or 1.0, device=device) if embeds else None

    def velocity(x: Tensor, t: float) -> Tensor:
        times = torch.full((len(ids),), t, device=device)
        found = networks.velocity(batch, x.repeat(2, 1, 1) if twice else x, times, scale).float()
        if not twice or sampling.guidance is None:
            return found
        conditional, unconditional = found.chunk(2)
        return classifier_free(unconditional, conditional, sampling.guidance)

    *_, final = euler(velocity, latents, sigmas(grid[0] * grid[1], sampling.steps))
    image = autoencoder.decode(tokens_to_grid(final, grid))
    return (image / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
