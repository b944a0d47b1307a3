"""The autoencoder in bands of rows: the result of the whole, in a fraction of its memory, without seams.

A convolution of a band needs one row more on either side. A group norm needs the mean and variance of the whole map:
they are gathered in a pass of their own before the bands are normalised. At the highest resolution nothing is kept but
the input of a block, into which its output is written; what lies between is computed again where it is needed. The
attention of the middle sees all positions, at the lowest resolution, as ever.

Shapes: B batch, C channels, G groups, H and W in pixels of the map at hand.
"""

from collections.abc import Iterator
from typing import Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from licht.model.autoencoder import Autoencoder, Decoder, Encoder, Level, ResnetBlock, patchify, unpatchify

BAND_ELEMENTS: Final = 8 * 2**20
"""Numbers of a map that are worked on at a time."""
_CACHED: Final = 2**17
"""So many numbers are normalised at a time."""
LEAST_ROWS: Final = 16
"""Narrower bands spend too much on the rows around them."""


class Source(Protocol):
    """A map that can be read band by band."""

    shape: tuple[int, int, int, int]
    widest: int
    """Most channels that a row has anywhere on its way into this map."""

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop`, all of them inside the map."""


class Stored:
    """A map in memory."""

    def __init__(self, map_BCHW: Tensor) -> None:
        """Read from this tensor."""
        self.map = map_BCHW
        self.shape = _four(map_BCHW.shape)
        self.widest = self.shape[1]

    def rows(self, start: int, stop: int) -> Tensor:
        """A view."""
        return self.map[:, :, start:stop]


class Convolved:
    """A 3 x 3 convolution of another map, computed anew for every band."""

    def __init__(self, source: Source, conv: nn.Conv2d) -> None:
        """The convolution keeps the size."""
        self.source, self.conv = source, conv
        self.shape = (source.shape[0], conv.out_channels, *source.shape[2:])
        self.widest = max(source.widest, conv.out_channels)

    def rows(self, start: int, stop: int) -> Tensor:
        """Convolve these rows."""
        return convolve(self.conv, _with_border(self.source, start - 1, stop + 1))


class Upsampled:
    """Every pixel of a map twice in both directions, then a 3 x 3 convolution, computed anew for every band.

    Of the nine weights those that meet the same pixel are added beforehand: each output pixel is a 2 x 2 convolution
    of the smaller map, with one of four kernels after its position.
    """

    def __init__(self, source: Source, conv: nn.Conv2d) -> None:
        """`conv` is the one that follows the repetition."""
        self.source, self.bias = source, conv.bias
        batch, _, height, width = source.shape
        self.shape = (batch, conv.out_channels, 2 * height, 2 * width)
        self.widest = conv.out_channels  # its input has a quarter of the pixels
        weight = conv.weight.float()
        first, second, third = weight.unbind(2)
        by_row = (torch.stack([first, second + third], 2), torch.stack([first + second, third], 2))
        self.kernels = [[_laid_out(self._columns(kernel, q), conv.weight) for q in (0, 1)] for kernel in by_row]

    @staticmethod
    def _columns(kernel: Tensor, q: int) -> Tensor:
        first, second, third = kernel.unbind(3)
        return torch.stack([first, second + third] if q == 0 else [first + second, third], 3)

    def rows(self, start: int, stop: int) -> Tensor:
        """Convolve these rows, four positions one after the other."""
        first, last = start // 2, -(-stop // 2)
        padded = F.pad(_with_border(self.source, first - 1, last + 1), (1, 1))
        height, width = last - first, self.shape[3] // 2
        out = _empty_like((self.shape[0], self.shape[1], 2 * height, 2 * width), self.kernels[0][0])
        for p in (0, 1):
            for q in (0, 1):
                part = padded[:, :, p : p + height + 1, q : q + width + 1]
                out[:, :, p::2, q::2] = F.conv2d(part, self.kernels[p][q], self.bias)
        return out[:, :, start - 2 * first : stop - 2 * first]


class Activated:
    """`silu(norm(map))` of another map, with the norm's statistics taken over the whole of it."""

    def __init__(self, source: Source, norm: nn.GroupNorm) -> None:
        """Read the whole source once."""
        self.source, self.shape, self.widest = source, source.shape, source.widest
        mean_BG, variance_BG = statistics(source, norm.num_groups)
        repeat = source.shape[1] // norm.num_groups
        rstd = (variance_BG + norm.eps).rsqrt().repeat_interleave(repeat, dim=1)
        scale = norm.weight.double() * rstd
        shift = norm.bias.double() - mean_BG.repeat_interleave(repeat, dim=1) * scale
        self.scale, self.shift = scale.float()[:, :, None, None], shift.float()[:, :, None, None]

    def rows(self, start: int, stop: int) -> Tensor:
        """Normalised in float32, then activated."""
        band = self.source.rows(start, stop)
        out = torch.empty_like(band)
        for part, into in zip(pieces(band), pieces(out), strict=True):
            into.copy_(torch.addcmul(self.shift, part.float(), self.scale))
            F.silu(into, inplace=True)
        return out


def statistics(source: Source, groups: int) -> tuple[Tensor, Tensor]:
    """Mean and variance (B, G) float64 over all of a map: those of the bands, put together exactly."""
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    parts = (part for start, stop in bands(source) for part in pieces(source.rows(start, stop)))
    for band in (part.float() for part in parts):
        size = band.shape[1] // groups * band.shape[2] * band.shape[3]
        # channel by channel first: that needs no copy in another layout, and plain sums are quicker than `var_mean`
        centre = band.mean(dim=(2, 3), keepdim=True)
        variances = (band - centre).square_().mean(dim=(2, 3)).double()
        averages = centre.flatten(1).double()
        spread, average = torch.var_mean(averages.unflatten(1, (groups, -1)), dim=2, correction=0)
        variance = variances.unflatten(1, (groups, -1)).mean(dim=2) + spread
        difference = average - mean.to(average)
        squares = squares.to(average) + variance * size + difference.square() * (count * size / (count + size))
        mean = mean.to(average) + difference * (size / (count + size))
        count += size
    return mean, squares / count


def pieces(band: Tensor) -> tuple[Tensor, ...]:
    """Views of so few rows that what a processor makes of them stays in its caches; elsewhere the band itself."""
    batch, channels, _, width = band.shape
    return band.split(max(1, _CACHED // (batch * channels * width)), dim=2) if band.device.type == "cpu" else (band,)


def bands(source: Source) -> Iterator[tuple[int, int]]:
    """(first row, row after the last) of each band."""
    batch, _, height, width = source.shape
    step = max(LEAST_ROWS, BAND_ELEMENTS // (batch * source.widest * width))
    for start in range(0, height, step):
        yield start, min(start + step, height)


def convolve(conv: nn.Conv2d, bordered: Tensor) -> Tensor:
    """A 3 x 3 convolution of rows that bring the row above and below; columns are padded with zeros."""
    return F.conv2d(bordered, conv.weight, conv.bias, padding=(0, 1))


def resnet(block: ResnetBlock, source: Source, keep_hidden: bool) -> Tensor:
    """A block's output. If the source is stored and has the width of the output, it is overwritten.

    `keep_hidden` stores what lies between the two convolutions instead of computing it three times.
    """
    hidden: Source = Convolved(Activated(source, block.norm1), block.conv1)
    if keep_hidden:
        hidden = Stored(written(hidden))
    last = Convolved(Activated(hidden, block.norm2), block.conv2)
    reuse = isinstance(source, Stored) and source.shape == last.shape
    out = source.map if isinstance(source, Stored) and reuse else _empty_like(last.shape, block.conv2.weight)
    waiting: tuple[int, Tensor] | None = None
    for start, stop in bands(last):
        band = last.rows(start, stop)
        shortcut = source.rows(start, stop)
        band += shortcut if block.nin_shortcut is None else block.nin_shortcut(shortcut)
        # the next band still reads the last rows of this one's input
        if waiting is not None:
            out[:, :, waiting[0] : waiting[0] + waiting[1].shape[2]] = waiting[1]
        waiting = (start, band)
    if waiting is not None:
        out[:, :, waiting[0] :] = waiting[1]
    return out


def written(source: Source) -> Tensor:
    """The whole of a map."""
    out: Tensor | None = None
    for start, stop in bands(source):
        band = source.rows(start, stop)
        out = _empty_like(source.shape, band) if out is None else out
        out[:, :, start:stop] = band
    assert out is not None  # a map has at least one row
    return out


def decode_banded(autoencoder: Autoencoder, latents_BCHW: Tensor) -> Tensor:
    """What `Autoencoder.decode` gives, to within rounding."""
    return _decoder(autoencoder.decoder, unpatchify(autoencoder.unwhiten(latents_BCHW)))


def encode_banded(autoencoder: Autoencoder, image_BCHW: Tensor) -> Tensor:
    """What `Autoencoder.encode` gives, to within rounding."""
    mean, _ = _encoder(autoencoder.encoder, image_BCHW).chunk(2, dim=1)
    return autoencoder.whiten(patchify(mean))


def _decoder(decoder: Decoder, z_BCHW: Tensor) -> Tensor:
    source: Source = Stored(decoder.mid(decoder.conv_in(decoder.post_quant_conv(z_BCHW))))
    for number in reversed(range(len(decoder.up))):
        level = decoder.up[number]
        assert isinstance(level, Level)
        source = _blocks(level, source, keep_hidden=number > 0)
        if level.resample is not None:
            source = Upsampled(source, level.upsample.conv)
    return written(Convolved(Activated(source, decoder.norm_out), decoder.conv_out))


def _encoder(encoder: Encoder, image_BCHW: Tensor) -> Tensor:
    source: Source = Convolved(Stored(image_BCHW), encoder.conv_in)
    for number, level in enumerate(encoder.down):
        assert isinstance(level, Level)
        source = _blocks(level, source, keep_hidden=number > 0)
        if level.resample is not None:
            source = Stored(_halved(level.downsample.conv, source))
    h = encoder.mid(source.rows(0, source.shape[2]))
    moments: Tensor = encoder.quant_conv(encoder.conv_out(F.silu(encoder.norm_out(h))))
    return moments


def _blocks(level: Level, source: Source, keep_hidden: bool) -> Stored:
    for block in level.block:
        assert isinstance(block, ResnetBlock)
        source = Stored(resnet(block, source, keep_hidden))
    assert isinstance(source, Stored)  # a level has at least one block
    return source


def _halved(conv: nn.Conv2d, source: Source) -> Tensor:
    """The strided convolution between levels of the encoder: one row and column of zeros at the end."""
    batch, _, height, width = source.shape
    out = _empty_like((batch, conv.out_channels, height // 2, width // 2), conv.weight)
    for start, stop in bands(source):  # a band of the result would need four of them
        first, last = -(-start // 2), min(-(-stop // 2), out.shape[2])
        if first < last:
            bordered = F.pad(_with_border(source, 2 * first, 2 * last + 1), (0, 1))
            out[:, :, first:last] = F.conv2d(bordered, conv.weight, conv.bias, stride=2)
    return out


def _with_border(source: Source, start: int, stop: int) -> Tensor:
    """Rows of a map, of which those outside of it are zeros."""
    height = source.shape[2]
    inside = source.rows(max(start, 0), min(stop, height))
    above, below = max(-start, 0), max(stop - height, 0)
    return F.pad(inside, (0, 0, above, below)) if above or below else inside


def _empty_like(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Of the layout of `like` too: convolutions would copy every band that has another one than their weights."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=_layout(like))


def _laid_out(kernel: Tensor, like: Tensor) -> Tensor:
    return kernel.to(like.dtype).contiguous(memory_format=_layout(like))


def _layout(like: Tensor) -> torch.memory_format:
    last = like.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _four(shape: torch.Size) -> tuple[int, int, int, int]:
    batch, channels, height, width = shape
    return batch, channels, height, width
