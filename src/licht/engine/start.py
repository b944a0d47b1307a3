"""A picture to begin with, a mask and margins: what of it is drawn, and how the drawn part comes back into it.

Everything happens on a canvas of whole tokens around the picture and its margins, at the size that the model draws at.
Shapes: H, W pixels, L tokens.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from licht.core.request import ImageRequest, Picture
from licht.core.sizes import PIXELS_PER_TOKEN, Size, ceil_to_tokens, native_size
from licht.engine.pictures import cover, from_image, to_image
from licht.model.variants import Variant

FEATHER_PX: Final = 8
"""Over so many pixels inside the mask, at the size that the model draws at, what is drawn fades in."""
_KEPT_BY_FEATHER: Final = 0.95
"""A feather is made narrower until that much of the mask lies within it: fine lines get none."""
_EPSILON: Final = 1e-6
"""Far below a pixel's share of any square, far above what sums lose."""

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Canvas:
    """What is drawn on. `picture` has the size that the model draws at, `whole` the size of the result.

    `alpha_HW` says how much of what is drawn shows in the result, `mask_1L1` how much of each token may change; both
    are None if everything may.
    """

    picture: Picture
    whole: Picture
    padded: Size
    strength: float
    alpha_HW: Bytes | None = field(default=None, repr=False)
    mask_1L1: Tensor | None = field(default=None, repr=False)
    shown: Picture | None = field(default=None, repr=False)
    """The part of `picture` that was there before, in whole tokens: the model sees it as a reference."""
    shown_at: tuple[int, int] = (0, 0)
    """Row and column of the token of `picture` where `shown` begins."""

    def finish(self, drawn: Picture) -> Picture:
        """The result: `drawn`, of the size of `picture`, where it may show, and the picture's own pixels elsewhere."""
        image = to_image(drawn)
        if drawn.size != self.padded:
            image = image.resize((self.padded.width, self.padded.height), Image.Resampling.LANCZOS)
        image = image.crop((0, 0, self.whole.width, self.whole.height))
        if self.alpha_HW is None:
            return from_image(image)
        return from_image(Image.composite(image, to_image(self.whole), Image.fromarray(self.alpha_HW)))


def canvas_of(request: ImageRequest, variant: Variant) -> Canvas | None:
    """The canvas of a request that begins with a picture, else None."""
    if request.start is None:
        return None
    whole, mask_HW = _whole(request)
    padded = ceil_to_tokens(whole.width, whole.height)
    native = native_size(padded, variant.trained_sizes)
    picture = _resized(filled(whole, (0, padded.width - whole.width), (0, padded.height - whole.height)), native)
    canvas = Canvas(picture, whole, padded, request.start.strength)
    if mask_HW is None:
        return canvas
    radius_px = round(FEATHER_PX * padded.width / native.width)
    canvas = replace(
        canvas, alpha_HW=_feathered(mask_HW, radius_px), mask_1L1=_token_mask(mask_HW, padded, native.grid)
    )
    if _is_reference(request):
        return canvas
    top, bottom, left, right = _tokens_there(request, padded, native)
    if top >= bottom or left >= right:
        return canvas
    box = (left * PIXELS_PER_TOKEN, top * PIXELS_PER_TOKEN, right * PIXELS_PER_TOKEN, bottom * PIXELS_PER_TOKEN)
    return replace(canvas, shown=from_image(to_image(picture).crop(box)), shown_at=(top, left))


def _whole(request: ImageRequest) -> tuple[Picture, Bytes | None]:
    """The picture with its margins, at the size of the result, and where it may change (255) or None for everywhere."""
    assert request.start is not None  # noqa: S101 - asked by the only caller
    start, extend = request.start.picture, request.extend
    if request.mask is None and extend is None:
        wanted = request.size or start.size
        return (start if wanted == start.size else cover(start, wanted)), None
    mask_HW = np.zeros((start.height, start.width), np.uint8)
    if request.mask is not None:
        mask_HW = np.frombuffer(request.mask.gray, np.uint8).reshape(mask_HW.shape)
    if extend is None:
        return start, mask_HW
    across, down = (extend.left, extend.right), (extend.top, extend.bottom)
    return filled(start, across, down), np.pad(mask_HW, (down, across), constant_values=255)


def filled(picture: Picture, across: tuple[int, int], down: tuple[int, int]) -> Picture:
    """`picture` with (left, right) and (top, bottom) pixels more, which mirror it."""
    if not any((*across, *down)):
        return picture
    pixels = np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3)
    filled = np.pad(pixels, (down, across, (0, 0)), mode="symmetric")
    return Picture(filled.shape[1], filled.shape[0], filled.tobytes())


def _resized(picture: Picture, size: Size) -> Picture:
    if picture.size == size:
        return picture
    return from_image(to_image(picture).resize((size.width, size.height), Image.Resampling.LANCZOS))


def _is_reference(request: ImageRequest) -> bool:
    """Whether the model sees the start picture anyhow."""
    assert request.start is not None  # noqa: S101 - asked by the only caller
    known = request.start.picture
    return any(reference.strength > 0 and reference.picture == known for reference in request.references)


def _tokens_there(request: ImageRequest, padded: Size, native: Size) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of the tokens that hold nothing but the picture as it was given."""
    margins = request.extend
    rows, columns = native.grid
    if margins is None:
        return 0, rows, 0, columns
    top, bottom = margins.top / padded.height * rows, margins.bottom / padded.height * rows
    left, right = margins.left / padded.width * columns, margins.right / padded.width * columns
    return math.ceil(top), rows - math.ceil(bottom), math.ceil(left), columns - math.ceil(right)


def _token_mask(mask_HW: Bytes, padded: Size, grid: tuple[int, int]) -> Tensor:
    """(1, L, 1) float32: the most that any pixel of a token may change.

    diffusers takes the middle of each token instead, so that white pixels of a token that is mostly black cannot change.
    Black pixels come back at the end anyhow.
    """
    height, width = mask_HW.shape
    whole_HW = np.pad(mask_HW, ((0, padded.height - height), (0, padded.width - width)))
    starts = [np.arange(n) * side // n for n, side in zip(grid, whole_HW.shape, strict=True)]
    cells = np.maximum.reduceat(np.maximum.reduceat(whole_HW, starts[0], axis=0), starts[1], axis=1)
    return torch.from_numpy(cells.astype(np.float32) / 255.0).reshape(1, -1, 1)


def _feathered(mask_HW: Bytes, radius_px: int) -> Bytes:
    """How much of what is drawn shows: nothing outside the mask, fading in over `radius_px` inside it.

    The mask is drawn in by that radius and blurred by the same, so nothing spills. Where that would lose more than a
    twentieth of the mask, the radius is halved until it does not; the edge of the picture is not faded.
    """
    inside_HW = mask_HW > 0
    if inside_HW.all():
        return mask_HW
    while radius_px >= 1:
        drawn_in = _box_mean(inside_HW, radius_px) > 1 - _EPSILON
        ramp_HW = _box_mean(drawn_in, radius_px)
        if np.count_nonzero(ramp_HW > _EPSILON) >= _KEPT_BY_FEATHER * np.count_nonzero(inside_HW):
            return np.where(inside_HW, np.round(mask_HW * ramp_HW), 0).astype(np.uint8)
        radius_px //= 2
    return mask_HW


def _box_mean(values_HW: npt.NDArray[np.bool_], radius_px: int) -> npt.NDArray[np.float64]:
    """The mean over squares of 2 `radius_px` + 1 pixels; beyond its edge the picture goes on as at the edge."""
    result: npt.NDArray[np.float64] = values_HW.astype(np.float64)
    width = 2 * radius_px + 1
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (radius_px + 1, radius_px)
        sums = np.cumsum(np.pad(result, pad, mode="edge"), axis=axis)
        after, before = (
            np.take(sums, range(width, sums.shape[axis]), axis),
            np.take(sums, range(sums.shape[axis] - width), axis),
        )
        result = (after - before) / width
    return result
