"""The FLUX.2 autoencoder: 8x down, 32 channels, 2 x 2 patches, whitened by stored batch statistics.

Parameters bear the official names (`encoder.down.0.block.1.conv1.weight`). Shapes: B batch, C channels, H and W in
pixels for images and in tokens (pixels / 16) for latents.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from licht.model.attention import attention
from licht.model.variants import AutoencoderConfig

NORM_EPS = 1e-6
PATCH = 2


def patchify(z_BCHW: Tensor) -> Tensor:
    """(B, C, 2h, 2w) -> (B, 4C, h, w); channel index is c x 4 + row x 2 + column."""
    return F.pixel_unshuffle(z_BCHW, PATCH)


def unpatchify(z_BCHW: Tensor) -> Tensor:
    """Inverse of `patchify`."""
    return F.pixel_shuffle(z_BCHW, PATCH)


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    """Group norm with the official eps."""
    return nn.GroupNorm(groups, channels, eps=NORM_EPS)


class ResnetBlock(nn.Module):
    """Two norm-swish-convolution steps with a residual, through a 1 x 1 convolution where the width changes."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        """Build the block; `nin_shortcut` exists only where the width changes."""
        super().__init__()
        self.norm1 = group_norm(in_channels, groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels, groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x_BCHW)))
        h = self.conv2(F.silu(self.norm2(h)))
        shortcut = x_BCHW if self.nin_shortcut is None else self.nin_shortcut(x_BCHW)
        out: Tensor = shortcut + h
        return out


class AttnBlock(nn.Module):
    """Single-head attention over all positions, with a residual."""

    def __init__(self, channels: int, groups: int) -> None:
        """Projections are 1 x 1 convolutions, as in the official file."""
        super().__init__()
        self.norm = group_norm(channels, groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        height, width = x_BCHW.shape[2:]
        h = self.norm(x_BCHW)
        q, k, v = (conv(h).flatten(2).transpose(1, 2)[:, None] for conv in (self.q, self.k, self.v))
        attended = attention(q, k, v).transpose(1, 2).unflatten(2, (height, width))
        out: Tensor = x_BCHW + self.proj_out(attended)
        return out


class Downsample(nn.Module):
    """Halve both sides: pad right and bottom by one, then a strided convolution."""

    def __init__(self, channels: int) -> None:
        """The convolution itself has no padding."""
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H/2, W/2)."""
        out: Tensor = self.conv(F.pad(x_BCHW, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Double both sides: repeat every pixel, then a convolution."""

    def __init__(self, channels: int) -> None:
        """The convolution keeps the size."""
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W)."""
        out: Tensor = self.conv(F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest"))
        return out


class Middle(nn.Module):
    """Block, attention, block at the lowest resolution."""

    def __init__(self, channels: int, groups: int) -> None:
        """All at one width."""
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, groups)
        self.attn_1 = AttnBlock(channels, groups)
        self.block_2 = ResnetBlock(channels, channels, groups)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        out: Tensor = self.block_2(self.attn_1(self.block_1(x_BCHW)))
        return out


class Level(nn.Module):
    """The blocks of one resolution, and the way to the next one."""

    def __init__(self, in_channels: int, out_channels: int, blocks: int, groups: int, resample: str | None) -> None:
        """`resample` is "downsample", "upsample" or None for the last level; it names the submodule."""
        super().__init__()
        widths = [in_channels] + [out_channels] * blocks
        self.block = nn.ModuleList(ResnetBlock(a, b, groups) for a, b in pairwise(widths))
        if resample == "downsample":
            self.downsample = Downsample(out_channels)
        elif resample == "upsample":
            self.upsample = Upsample(out_channels)
        self.resample = resample

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Run the blocks, then resample."""
        for block in self.block:
            x_BCHW = block(x_BCHW)
        return x_BCHW if self.resample is None else getattr(self, self.resample)(x_BCHW)


class Encoder(nn.Module):
    """Image to mean and log-variance of the latent."""

    def __init__(self, config: AutoencoderConfig) -> None:
        """`quant_conv` lies inside the encoder, as in the official file."""
        super().__init__()
        widths, groups = config.channels, config.norm_groups
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        last = len(widths) - 1
        self.down = nn.ModuleList(
            Level(widths[max(i - 1, 0)], widths[i], config.num_res_blocks, groups, "downsample" if i < last else None)
            for i in range(len(widths))
        )
        self.mid = Middle(widths[-1], groups)
        self.norm_out = group_norm(widths[-1], groups)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.z_channels, 3, padding=1)
        self.quant_conv = nn.Conv2d(2 * config.z_channels, 2 * config.z_channels, 1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, 2 x z_channels, H/8, W/8): mean and log-variance."""
        h = self.conv_in(image_BCHW)
        for level in self.down:
            h = level(h)
        h = self.conv_out(F.silu(self.norm_out(self.mid(h))))
        moments: Tensor = self.quant_conv(h)
        return moments


class Decoder(nn.Module):
    """Latent to image. `up.0` is the highest resolution and runs last."""

    def __init__(self, config: AutoencoderConfig) -> None:
        """One more block a level than the encoder; `post_quant_conv` lies inside."""
        super().__init__()
        widths, groups = config.decoder_channels, config.norm_groups
        self.post_quant_conv = nn.Conv2d(config.z_channels, config.z_channels, 1)
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], groups)
        last = len(widths) - 1
        self.up = nn.ModuleList(
            Level(widths[min(i + 1, last)], widths[i], config.num_res_blocks + 1, groups, "upsample" if i > 0 else None)
            for i in range(len(widths))
        )
        self.norm_out = group_norm(widths[0], groups)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z_BCHW: Tensor) -> Tensor:
        """(B, z_channels, H/8, W/8) -> (B, 3, H, W), about [-1, 1]."""
        h = self.mid(self.conv_in(self.post_quant_conv(z_BCHW)))
        for level in reversed(self.up):
            h = level(h)
        image: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return image


class Autoencoder(nn.Module):
    """Images to whitened latent tokens and back."""

    def __init__(self, config: AutoencoderConfig) -> None:
        """Build an untrained autoencoder; its statistics start at mean 0, variance 1."""
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.bn = nn.BatchNorm2d(config.token_channels, eps=config.batch_norm_eps, momentum=0.1, affine=False)

    def encode_moments(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each (B, z_channels, H/8, W/8), of an image in [-1, 1]."""
        mean, log_variance = self.encoder(image_BCHW).chunk(2, dim=1)
        return mean, log_variance

    def encode(self, image_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], sides multiples of 16 -> whitened latents (B, 128, H/16, W/16). Not sampled."""
        mean, _ = self.encode_moments(image_BCHW)
        return self.whiten(patchify(mean))

    def decode(self, latents_BCHW: Tensor) -> Tensor:
        """Whitened latents (B, 128, H/16, W/16) -> (B, 3, H, W), about [-1, 1]."""
        image: Tensor = self.decoder(unpatchify(self.unwhiten(latents_BCHW)))
        return image

    def whiten(self, z_BCHW: Tensor) -> Tensor:
        """Subtract the stored mean and divide by the stored deviation of each token channel."""
        mean, deviation = self._statistics(z_BCHW)
        return (z_BCHW - mean) / deviation

    def unwhiten(self, z_BCHW: Tensor) -> Tensor:
        """Inverse of `whiten`."""
        mean, deviation = self._statistics(z_BCHW)
        return z_BCHW * deviation + mean

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        assert self.bn.running_mean is not None  # the batch norm tracks its statistics
        assert self.bn.running_var is not None
        deviation = torch.sqrt(self.bn.running_var.float() + self.config.batch_norm_eps)
        mean = self.bn.running_mean.to(like.dtype)
        return mean.view(1, -1, 1, 1), deviation.to(like.dtype).view(1, -1, 1, 1)
