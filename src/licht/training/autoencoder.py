"""Training the autoencoder: random crops, sampled latents, and the statistics that whiten them at the end."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from licht.model.autoencoder import Autoencoder, patchify
from licht.training.build import autoencoder_config, initialise_autoencoder
from licht.training.config import AutoencoderLoss, Recipe
from licht.training.draws import generator_of
from licht.training.loop import Rank
from licht.training.objectives import psnr, reconstruction_losses
from licht.training.pictures import PictureStore, WriteSheet
from licht.training.semantic import CLASSES, POSITION_PX, semantic_loss

_HELD_OUT, _SHOWN = 256, 8


@dataclass(frozen=True, slots=True)
class AutoencoderBatch:
    """Images (B, 3, H, W) in [-1, 1], noise of the latent's shape, and labels (B, H / 8, W / 8, 3) where wanted.

    `level_B` is how much of the noise the decoder gets on top of what the encoder asks for, in deviations of the latents.
    """

    image_BCHW: Tensor
    noise_BCHW: Tensor
    level_B: Tensor
    labels_BHWK: Tensor | None


class AutoencoderModule(nn.Module):
    """Encode, sample, decode, compare."""

    def __init__(self, autoencoder: Autoencoder, weights: AutoencoderLoss) -> None:
        """Train `autoencoder` with the given loss weights."""
        super().__init__()
        self.autoencoder = autoencoder
        self.weights = weights
        self.semantic = nn.Conv2d(autoencoder.config.z_channels, sum(CLASSES), 1) if weights.semantic else None

    def forward(self, batch: AutoencoderBatch) -> dict[str, Tensor]:
        """Weighted terms of the loss."""
        image, noise = batch.image_BCHW, batch.noise_BCHW
        mean, log_variance = self.autoencoder.encode_moments(image)
        mean, log_variance = mean.float(), log_variance.float().clamp(-30, 20)
        variance = log_variance.exp()
        if self.weights.noise:
            # The gradient goes through the deviation too: larger latents are no way out of the noise.
            spread = mean.var(dim=(0, 2, 3), keepdim=True)
            variance = variance + batch.level_B.square().view(-1, 1, 1, 1) * spread
        z = mean + noise * variance.sqrt()
        decoded = self.autoencoder.decoder(z)
        terms = reconstruction_losses(decoded.float(), image, mean, log_variance, self.weights)
        if self.semantic is not None and batch.labels_BHWK is not None:
            terms["semantic"] = self.weights.semantic * semantic_loss(self.semantic(z), batch.labels_BHWK)
        return terms


class AutoencoderTask:
    """Batches of random crops from rendered pictures; the last pictures are held out."""

    def __init__(
        self,
        recipe: Recipe,
        store: PictureStore,
        device: torch.device,
        write_sheet: WriteSheet,
        labels: PictureStore | None = None,
        start: Autoencoder | None = None,
    ) -> None:
        """Build and initialise the networks from the recipe's seed, or go on with those of `start`.

        `labels` are those of the pictures in `store`.
        """
        self.recipe, self.store, self.device, self.write_sheet = recipe, store, device, write_sheet
        self.labels = labels
        torch.manual_seed(recipe.seed)
        autoencoder = Autoencoder(autoencoder_config(recipe.networks))
        initialise_autoencoder(autoencoder)
        if start is not None:
            autoencoder.load_state_dict(start.state_dict())
        autoencoder.encoder.requires_grad_(not recipe.autoencoder.decoder_only)
        self.module: nn.Module = AutoencoderModule(autoencoder, recipe.autoencoder).to(device)
        self.autoencoder = autoencoder

    def batch(self, step: int, rank: Rank) -> AutoencoderBatch:
        """Crops and noise of this rank's rows."""
        generator = generator_of(self.recipe, step)
        count = self.recipe.optim.batch
        crop = self.recipe.data.crop_px
        indices = torch.randint(self.store.count - _HELD_OUT, (count,), generator=generator)
        tops = torch.randint((self.store.size[1] - crop) // 8 + 1, (count,), generator=generator) * 8
        lefts = torch.randint((self.store.size[0] - crop) // 8 + 1, (count,), generator=generator) * 8
        z = self.recipe.networks.z_channels
        noise = torch.randn(count, z, crop // 8, crop // 8, generator=generator)
        level = self.recipe.autoencoder.noise * torch.rand(count, generator=generator)
        rows = rank.rows
        at = list(zip(tops[rows].tolist(), lefts[rows].tolist(), strict=True))
        whole = self.store.images(indices[rows])
        crops = [image[:, top : top + crop, left : left + crop] for image, (top, left) in zip(whole, at, strict=True)]
        labels = None
        if self.labels is not None:
            cell, side = POSITION_PX, crop // POSITION_PX
            labels = torch.stack(
                [
                    each[top // cell : top // cell + side, left // cell : left // cell + side]
                    for each, (top, left) in zip(self.labels.pixels(indices[rows]), at, strict=True)
                ]
            ).to(self.device)
        images = torch.stack(crops).to(self.device)
        return AutoencoderBatch(images, noise[rows].to(self.device), level[rows].to(self.device), labels)

    @torch.no_grad()
    def sample(self, path: Path, step: int) -> dict[str, float]:
        """PSNR of held-out pictures, and a sheet of the first of them beside what comes back."""
        del step
        values: list[Tensor] = []
        for first in range(self.store.count - _HELD_OUT, self.store.count, 32):
            image = self.store.images(torch.arange(first, first + 32)).to(self.device)
            decoded = self.autoencoder.decoder(self.autoencoder.encode_moments(image)[0])
            if not values:
                self._write_pairs(path, image[:_SHOWN], decoded[:_SHOWN])
            values.append(psnr(decoded, image))
        return {"psnr_db": float(torch.cat(values).mean())}

    def _write_pairs(self, path: Path, image: Tensor, decoded: Tensor) -> None:
        figures = psnr(decoded, image).tolist()
        pairs = torch.stack([image, decoded], 1).flatten(0, 1)
        pixels = (pairs / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
        labels = [text for value in figures for text in ("held out", f"{value:.1f} dB")]
        self.write_sheet(path, pixels, labels)


@torch.no_grad()
def measure_statistics(autoencoder: Autoencoder, batches: Iterable[Tensor]) -> None:
    """Set the batch norm's mean and variance to those of the latents of `batches` of images (B, 3, H, W) in [-1, 1].

    They whiten each (channel, sub-position) of the patchified mean, as the official autoencoder's do.
    """
    device = next(autoencoder.parameters()).device
    total = torch.zeros(autoencoder.config.token_channels, dtype=torch.float64, device=device)
    squares, count = torch.zeros_like(total), 0
    for image in batches:
        flat = patchify(autoencoder.encode_moments(image.to(device))[0]).transpose(0, 1).flatten(1).double()
        total, squares, count = total + flat.sum(1), squares + flat.square().sum(1), count + flat.shape[1]
    mean = total / count
    statistics = dict(autoencoder.bn.named_buffers())
    statistics["running_mean"].copy_(mean)
    statistics["running_var"].copy_(squares / count - mean.square())
