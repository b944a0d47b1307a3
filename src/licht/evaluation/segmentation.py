"""A second check that is not learned: where is a picture of a colour, and is that where it ought to be?

Pixels are compared by hue in Oklab, which shading hardly changes; so only colours with a hue can be asked for.
Shapes: H rows, W columns.
"""

import math
from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from licht.world import vocabulary as v
from licht.world.arrange import arrange
from licht.world.scene import Scene, Thing

_HUE_DEG: Final = 17.0
_LEAST_CHROMA: Final = 0.055
"""Gray, white and black have less; so do the plain floors but teal and lilac, which the hue tells apart from most."""
_LEAST_SHARE: Final = 0.004
_BESIDE_PX: Final = 6
_APART: Final = 0.07
_SHADOW: Final = 0.5
"""Weight of lightness where a thing is told from the floor: shadows differ from it in nothing else."""
_LEAST_OF_BOX: Final = 0.15
TELLABLE: Final = ("red", "green", "yellow", "orange", "blue", "pink", "purple")
"""Colours whose hue neither a floor nor another of these comes near."""


def oklab(picture_HWC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lightness and the two chroma coordinates (Ottosson, 2020) of uint8 pixels, each (H, W)."""
    value = picture_HWC.float() / 255.0
    linear = torch.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    red, green, blue = linear.unbind(-1)
    long = (0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue).pow(1 / 3)
    middle = (0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue).pow(1 / 3)
    short = (0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue).pow(1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    )


def color_mask(picture_HWC: Tensor, color: str) -> Tensor:
    """Pixels (H, W, bool) with about the hue of a named colour."""
    _, a, b = oklab(picture_HWC)
    _, asked_a, asked_b = v.oklab_of(v.hex_of(color))
    away = torch.rad2deg(torch.atan2(b, a)) - math.degrees(math.atan2(asked_b, asked_a))
    return (((away + 180) % 360 - 180).abs() < _HUE_DEG) & (torch.hypot(a, b) > _LEAST_CHROMA)


def largest_region(mask_HW: Tensor) -> Tensor:
    """The largest connected region (H, W, bool) of a mask, by spreading labels until nothing changes."""
    height, width = mask_HW.shape
    labels = torch.arange(1, height * width + 1, dtype=torch.float32).view(height, width) * mask_HW
    while True:
        spread = F.max_pool2d(labels[None, None], 3, 1, 1)[0, 0] * mask_HW
        if torch.equal(spread, labels):
            break
        labels = spread
    values, counts = labels[mask_HW].unique(return_counts=True)
    return labels == values[counts.argmax()] if len(values) else mask_HW


def place_of(picture_HWC: Tensor, color: str) -> float | None:
    """Where the largest region of a colour is, from 0 (left edge) to 1; None if there is hardly any of it."""
    region = largest_region(color_mask(picture_HWC, color))
    if float(region.float().mean()) < _LEAST_SHARE:
        return None
    columns = region.nonzero()[:, 1].float()
    return float(columns.mean() + 0.5) / region.shape[1]


def row_colors(scene: Scene) -> list[str] | None:
    """The colours of a row of plain, not metal, things from left to right; None where this check cannot be made."""
    arrangement = arrange(scene)
    if arrangement.kind not in {"row", "single"} or scene.light.warmth != "neutral" or scene.lettering is not None:
        return None
    things = [scene.subjects[unit[0]] for unit in arrangement.units]
    colors = [each.color for each in things if isinstance(each, Thing) and each.pattern == "plain"]
    able = all(isinstance(each, Thing) and each.material != "metal" for each in things)
    if not able or len(colors) < len(scene.subjects) or len(set(colors)) < len(colors):
        return None
    return colors if all(color in TELLABLE for color in colors) and _apart(colors) else None


def _apart(colors: Sequence[str]) -> bool:
    """Whether no two hues are so near that a shaded pixel of one passes for the other."""
    hues = [math.degrees(math.atan2(*reversed(v.oklab_of(v.hex_of(color))[1:]))) for color in colors]
    return all(abs((a - b + 180) % 360 - 180) > 2.5 * _HUE_DEG for at, a in enumerate(hues) for b in hues[at + 1 :])


def colors_in_order(picture_HWC: Tensor, colors: Sequence[str]) -> bool:
    """Whether there is a region of each colour, from left to right in this order."""
    places = [place_of(picture_HWC, color) for color in colors]
    known = [place for place in places if place is not None]
    return len(known) == len(colors) and known == sorted(known)


def shown_color(picture_HWC: Tensor, box: tuple[float, float, float, float]) -> str:
    """The middling colour `#rrggbb` of a thing as it is lit: the median of what differs from the floor around its box.

    `box` is (left, top, right, bottom) in shares of width and height. A thing that differs in nothing has the box's median.
    """
    height, width = picture_HWC.shape[:2]
    left, right = (min(max(round(each * width), 0), width) for each in (box[0], box[2]))
    top, bottom = (min(max(round(each * height), 0), height) for each in (box[1], box[3]))
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    beside = torch.zeros_like(inside)
    beside[max(top - _BESIDE_PX, 0) : bottom + _BESIDE_PX, max(left - _BESIDE_PX, 0) : right + _BESIDE_PX] = True
    beside &= ~inside
    light, a, b = oklab(picture_HWC)
    away = torch.zeros(height, width)
    for weight, channel in ((_SHADOW, light), (1.0, a), (1.0, b)):
        floor = channel[beside].median() if bool(beside.any()) else channel.median()
        away += (weight * (channel - floor)).square()
    mine = inside & (away.sqrt() > _APART)
    if int(mine.sum()) < _LEAST_OF_BOX * int(inside.sum()):
        mine = inside
    red, green, blue = picture_HWC[mine].median(dim=0).values.tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"


def agreement(picture_HWC: Tensor, instance_HW: Tensor, index: int, color: str) -> float:
    """Shared over joint area of the region of a colour and the true outline of a subject: 1 is perfect."""
    region, outline = largest_region(color_mask(picture_HWC, color)), instance_HW == index
    joint = int((region | outline).sum())
    return int((region & outline).sum()) / joint if joint else 0.0
