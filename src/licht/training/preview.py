"""Pictures during training: the same prompts and seeds every time, so that sheets can be compared."""

from collections.abc import Sequence
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


class Preview:
    """Draws fixed prompts with the current networks and writes a sheet."""

    def __init__(
        self, autoencoder: Autoencoder, encoder: CaptionEncoder, prompts: Sequence[str], write: WriteSheet
    ) -> None:
        """`prompts` are drawn at 128x128 with seeds 0, 1, 2, ..."""
        self.autoencoder, self.encoder, self.prompts, self.write = autoencoder, encoder, prompts, write

    def __call__(self, networks: FlowNetworks, path: Path, step: int) -> dict[str, float]:
        """Write a sheet of all prompts. Returns no figures: judging is evaluation's business."""
        del step
        pictures = draw(networks, self.autoencoder, self.encoder, self.prompts, steps=20, guidance=3.0)
        self.write(path, pictures, self.prompts)
        return {}


@torch.no_grad()
def draw(
    networks: FlowNetworks,
    autoencoder: Autoencoder,
    encoder: CaptionEncoder,
    prompts: Sequence[str],
    steps: int,
    guidance: float,
    grid: tuple[int, int] = (8, 8),
) -> Tensor:
    """uint8 (B, H, W, 3): each prompt drawn with its own seed (its position), with classifier-free guidance."""
    device = next(networks.parameters()).device
    channels = autoencoder.config.token_channels
    latents = torch.cat([initial_noise(seed, grid, channels) for seed in range(len(prompts))]).to(device)
    ids = torch.from_numpy(encoder([*prompts, *[""] * len(prompts)])[0].astype("int64")).to(device)
    batch = FlowBatch(latents, latents, latents.new_zeros(len(ids)), grid, ids, encoder.attended(ids), None, ())

    def velocity(x: Tensor, t: float) -> Tensor:
        times = torch.full((len(ids),), t, device=device)
        conditional, unconditional = networks.velocity(batch, x.repeat(2, 1, 1), times).float().chunk(2)
        return classifier_free(unconditional, conditional, guidance)

    *_, final = euler(velocity, latents, sigmas(grid[0] * grid[1], steps))
    image = autoencoder.decode(tokens_to_grid(final, grid))
    return (image / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
