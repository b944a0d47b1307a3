"""The judge's networks: a finder of things, a look at each of them from near, and a look at the picture from afar.

Looking again at every thing in a square that it fills costs a sixth of a look at the whole picture, whatever its size
is there, so that materials and patterns are learned from few pictures. What the finder has seen is added to what the
other two see.

Shapes: B pictures, N things in all of them, C channels, H and W cells or pixels. Boxes are (left, top, right, bottom),
places (x, y, width, height); both in shares of the picture's width and height.
"""

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from licht.evaluation.seen import OBJECT_CATEGORIES, PICTURE_CATEGORIES

CELL_PX: Final = 4
BOX, RGB = 4, 3
NEAR_PX, FAR_PX = 48, 64
"""Sides of the square in which a thing is looked at, and of the whole picture as it is seen from afar."""
MARGIN: Final = 1.25
"""Side of the square over the longer side of the thing's box."""
_STEM, _FINE, _MIDDLE, _COARSE, _HEAD = 32, 48, 64, 96, 64
_NEAR_WIDTHS, _FAR_WIDTHS = (32, 56, 80), (24, 40, 56)
_HIDDEN: Final = 96
SEEN: Final = 96
"""Features of a cell."""


def _convolution(in_channels: int, out_channels: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class _Residual(nn.Module):
    """Two convolutions beside a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out: Tensor = F.relu(x_BCHW + self.second(self.first(x_BCHW)))
        return out


@dataclass(frozen=True, slots=True)
class Glance:
    """What the finder sees of B pictures.

    `cells_BCHW`: certainty, and the place of the thing in whose middle a cell is, (x, y) in cells from the cell's own
    middle; `seen_BCHW` features of cells of 4 px, `pooled_BC` of whole pictures.
    """

    cells_BCHW: Tensor
    seen_BCHW: Tensor
    pooled_BC: Tensor


class Finder(nn.Module):
    """A pyramid of three resolutions whose finest level says where things are."""

    def __init__(self) -> None:
        """0.8 M parameters."""
        super().__init__()
        self.stem = _convolution(3, _STEM, stride=2, kernel=5)
        self.near = nn.Sequential(_convolution(_STEM, _FINE, 2), _Residual(_FINE), _Residual(_FINE))
        self.middle = nn.Sequential(_convolution(_FINE, _MIDDLE, 2), _Residual(_MIDDLE), _Residual(_MIDDLE))
        self.far = nn.Sequential(_convolution(_MIDDLE, _COARSE, 2), _Residual(_COARSE), _Residual(_COARSE))
        self.from_far = nn.Conv2d(_COARSE, _MIDDLE, 1)
        self.joined = _convolution(_MIDDLE, _HEAD)
        self.from_near = nn.Conv2d(_FINE, _HEAD, 1)
        self.fine = _Residual(_HEAD)
        last = nn.Conv2d(SEEN, 1 + BOX, 1)
        with torch.no_grad():
            dict(last.named_parameters())["bias"].narrow(0, 0, 1).fill_(-3.0)  # nearly every cell is empty
        self.objects = nn.Sequential(_convolution(_HEAD, SEEN), last)

    def forward(self, image_BCHW: Tensor) -> Glance:
        """Images in [-1, 1], sides multiples of 16."""
        near = self.near(self.stem(image_BCHW))
        middle = self.middle(near)
        far = self.far(middle)
        up = self.joined(middle + F.interpolate(self.from_far(far), scale_factor=2.0))
        fine = self.fine(self.from_near(near) + F.interpolate(up, scale_factor=2.0))
        seen = self.objects[0](fine)
        pooled = torch.cat([far.mean((2, 3)), far.amax((2, 3)), middle.mean((2, 3))], 1)
        return Glance(self.objects[1](seen), seen, pooled)


class _Look(nn.Module):
    """A square picture to a few numbers a place: what is where matters, so nothing is averaged."""

    def __init__(self, side_px: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        first, second, third = widths
        self.layers = nn.Sequential(
            *(_convolution(3, first, 2, 5), _Residual(first)),
            *(_convolution(first, second, 2), _Residual(second), _Residual(second)),
            *(_convolution(second, third, 2), _Residual(third)),
            _convolution(third, third // 5, kernel=1),
        )
        self.numbers = (side_px // 8) ** 2 * (third // 5)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        found: Tensor = self.layers(image_BCHW)
        return found.flatten(1)


@dataclass(frozen=True, slots=True)
class Near:
    """Raw answers about N places: how certain a thing is there, its box, its colour, its categories.

    `box_NK`: its middle from the square's, then the logarithms of its sides, all over the square's side.
    """

    there_N: Tensor
    box_NK: Tensor
    rgb_NK: Tensor
    categories_NC: Tensor


class JudgeNetwork(nn.Module):
    """Where things are, what each is, and how the whole picture is lit, seen and laid out."""

    def __init__(self) -> None:
        """1.5 M parameters."""
        super().__init__()
        of_thing = RGB + sum(len(names) for names in OBJECT_CATEGORIES.values())
        of_picture = sum(len(names) for names in PICTURE_CATEGORIES.values())
        self.finder = Finder()
        self.near, self.far = _Look(NEAR_PX, _NEAR_WIDTHS), _Look(FAR_PX, _FAR_WIDTHS)
        self.context = nn.Sequential(nn.Linear(self.far.numbers, _HIDDEN), nn.ReLU())
        self.picture = nn.Linear(_HIDDEN, of_picture)
        self.picture_glance = nn.Sequential(
            nn.Linear(2 * _COARSE + _MIDDLE, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, of_picture)
        )
        self.joined = nn.Sequential(nn.Linear(self.near.numbers + _HIDDEN + BOX, _HIDDEN), nn.ReLU())
        self.thing = nn.Linear(_HIDDEN, 1 + BOX + of_thing)
        self.thing_glance = nn.Linear(SEEN, of_thing)

    def find(self, image_BCHW: Tensor) -> Glance:
        """See `Finder`."""
        glance: Glance = self.finder(image_BCHW)
        return glance

    def look_far(self, image_BCHW: Tensor, glance: Glance) -> tuple[Tensor, Tensor]:
        """(context (B, C) for `look_near`, logits of the picture's categories (B, C))."""
        small = F.adaptive_avg_pool2d(image_BCHW, FAR_PX)
        context = self.context(self.far(small.contiguous(memory_format=torch.channels_last)))
        return context, self.picture(context) + self.picture_glance(glance.pooled_BC)

    def look_near(self, image_BCHW: Tensor, glance: Glance, context_BC: Tensor, spots: "Spots") -> Near:
        """What is in each of N boxes."""
        crops, place = crops_of(image_BCHW, spots.at_N, spots.boxes_N4, MARGIN)
        seen = self.near(crops.contiguous(memory_format=torch.channels_last))
        answers = self.thing(self.joined(torch.cat([seen, context_BC[spots.at_N], place], 1)))
        height, width = glance.seen_BCHW.shape[2:]
        column = (spots.middles_N2[:, 0] * width).long().clamp(0, width - 1)
        row = (spots.middles_N2[:, 1] * height).long().clamp(0, height - 1)
        # whether a thing is there the second look must tell by itself, or it would only repeat the first
        there, box, what = answers.split([1, BOX, answers.shape[1] - 1 - BOX], 1)
        what = what + self.thing_glance(glance.seen_BCHW[spots.at_N, :, row, column])
        return Near(there[:, 0], box, what[:, :RGB], what[:, RGB:])


@dataclass(frozen=True, slots=True)
class Spots:
    """Where to look from near: numbers of pictures, boxes, and the middles (x, y) that the finder took notice of."""

    at_N: Tensor
    boxes_N4: Tensor
    middles_N2: Tensor


def crops_of(image_BCHW: Tensor, at_N: Tensor, boxes_N4: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """(squares around boxes (N, 3, 48, 48), places of the boxes (N, 4)). Beyond the picture its edge goes on."""
    height, width = image_BCHW.shape[2:]
    place = places_of(boxes_N4)
    side_px = margin * torch.maximum(place[:, 2] * width, place[:, 3] * height)
    steps = (torch.arange(NEAR_PX, device=image_BCHW.device) + 0.5) / NEAR_PX - 0.5
    x = 2 * (place[:, 0, None] + steps * (side_px / width)[:, None]) - 1
    y = 2 * (place[:, 1, None] + steps * (side_px / height)[:, None]) - 1
    size = (len(at_N), NEAR_PX, NEAR_PX)
    grid = torch.stack([x[:, None, :].expand(size), y[:, :, None].expand(size)], 3)
    crops = F.grid_sample(image_BCHW[at_N], grid, padding_mode="border", align_corners=False)
    return crops, place


def places_of(boxes_N4: Tensor) -> Tensor:
    """Boxes as (x, y, width, height)."""
    first, last = boxes_N4[..., :2], boxes_N4[..., 2:]
    return torch.cat([(first + last) / 2, last - first], -1)


def boxes_of(places_N4: Tensor) -> Tensor:
    """Places as (left, top, right, bottom)."""
    middle, half = places_N4[..., :2], places_N4[..., 2:] / 2
    return torch.cat([middle - half, middle + half], -1)


def overlaps(first_N4: Tensor, second_M4: Tensor) -> Tensor:
    """(..., N, M): shared area over joint area of every two boxes; axes before the last two are alike."""
    a, b = first_N4[..., :, None, :], second_M4[..., None, :, :]
    shared = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    joint = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    return shared / joint.clamp(min=1e-9)
