"""Sizes of pictures in pixels: limits, parsing, and the size a model really draws at."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from licht.core.errors import InvalidRequest

PIXELS_PER_TOKEN: Final = 16
"""One latent token covers 16 x 16 pixels: the autoencoder divides by 8, the 2 x 2 patches by 2."""
MIN_SIDE_PX: Final = 64
MAX_AREA_PX: Final = 4 * 1024 * 1024
MAX_ASPECT: Final = 8
MAX_SIDE_PX: Final = math.isqrt(MAX_AREA_PX * MAX_ASPECT)
"""No longer side fits into that area at that aspect."""

_SIZE = re.compile(r"\s*(\d{1,6})\s*[xX\u00d7]\s*(\d{1,6})\s*")


@dataclass(frozen=True, slots=True, order=True)
class Size:
    """Width and height of a picture in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def area_px(self) -> int:
        """Number of pixels."""
        return self.width * self.height

    @property
    def aspect(self) -> float:
        """Width divided by height."""
        return self.width / self.height

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of latent tokens."""
        return self.height // PIXELS_PER_TOKEN, self.width // PIXELS_PER_TOKEN

    @property
    def tokens(self) -> int:
        """Number of latent tokens."""
        rows, columns = self.grid
        return rows * columns


def parse_size(text: str) -> Size:
    """Read `WIDTHxHEIGHT`. Raises `InvalidRequest` for anything else or for a size that cannot be drawn."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InvalidRequest(f"size {text!r} is not WIDTHxHEIGHT in pixels, such as 1024x768", field="size")
    return check_size(Size(int(match[1]), int(match[2])))


def check_size(size: Size) -> Size:
    """Return `size` if a picture of that size can be drawn, else raise `InvalidRequest` with the nearest help."""
    for name, side_px in (("width", size.width), ("height", size.height)):
        require_whole(side_px, name, field="size")
        if side_px < MIN_SIDE_PX:
            raise InvalidRequest(f"{name} {side_px} px is too small; use at least {MIN_SIDE_PX} px", field="size")
        if side_px > MAX_SIDE_PX:
            raise InvalidRequest(f"{name} {side_px} px is too large; use at most {MAX_SIDE_PX} px", field="size")
        if side_px % PIXELS_PER_TOKEN:
            below = side_px // PIXELS_PER_TOKEN * PIXELS_PER_TOKEN
            raise InvalidRequest(
                f"{name} {side_px} px is not a multiple of {PIXELS_PER_TOKEN}; "
                f"use {max(below, MIN_SIDE_PX)} or {below + PIXELS_PER_TOKEN}",
                field="size",
            )
    if size.area_px > MAX_AREA_PX:
        raise InvalidRequest(
            f"size {size} has {size.area_px / 1024**2:.2f} megapixels; at most {MAX_AREA_PX // 1024**2} "
            f"(such as 2048x2048) can be drawn",
            field="size",
        )
    if max(size.aspect, 1 / size.aspect) > MAX_ASPECT:
        raise InvalidRequest(f"size {size} is longer than {MAX_ASPECT}:1; choose a squarer one", field="size")
    return size


def require_whole(value: object, name: str, field: str | None = None) -> None:
    """Raise `InvalidRequest` unless `value` is a whole number: from Python anything may come."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidRequest(f"{name} is {value!r}, which is no whole number; use an int", field=field or name)


def require_number(value: object, name: str) -> None:
    """Raise `InvalidRequest` unless `value` is a number: from Python anything may come."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidRequest(f"{name} is {value!r}, which is no number; use a float", field=name)


def floor_to_tokens(width: int, height: int) -> Size:
    """The size that remains when both sides are cut down to whole tokens."""
    return Size(width // PIXELS_PER_TOKEN * PIXELS_PER_TOKEN, height // PIXELS_PER_TOKEN * PIXELS_PER_TOKEN)


def ceil_to_tokens(width: int, height: int) -> Size:
    """The smallest size of whole tokens that holds both sides."""
    return Size(-(-width // PIXELS_PER_TOKEN) * PIXELS_PER_TOKEN, -(-height // PIXELS_PER_TOKEN) * PIXELS_PER_TOKEN)


def native_size(asked: Size, trained: Sequence[Size]) -> Size:
    """The size to draw at when `asked` is wanted from a model trained up to the sizes `trained`.

    Where sizes of (nearly) the asked ratio were trained, the largest of them is the limit. Other ratios may have the
    largest trained area, and beyond it get the size within it that is nearest to their ratio. `trained` empty means
    that the model has no such limit.
    """
    if not trained:
        return asked
    same_ratio = [size for size in trained if math.isclose(size.aspect, asked.aspect, rel_tol=0.02)]
    limit_px = max(size.area_px for size in same_ratio or trained)
    if asked.area_px <= limit_px:
        return asked
    if same_ratio:
        return max(same_ratio, key=lambda size: size.area_px)
    return min(_candidates(asked, limit_px), key=lambda size: _mismatch(size, asked, limit_px))


def _candidates(asked: Size, limit_px: int) -> list[Size]:
    """For each token-aligned width the heights nearest to the asked ratio, within the limits of size and area."""
    found = []
    for width in range(MIN_SIDE_PX, limit_px // MIN_SIDE_PX + 1, PIXELS_PER_TOKEN):
        tallest = limit_px // width // PIXELS_PER_TOKEN
        ideal = width / asked.aspect / PIXELS_PER_TOKEN
        for rows in {math.floor(ideal), math.ceil(ideal)}:
            height = min(max(rows, MIN_SIDE_PX // PIXELS_PER_TOKEN), tallest) * PIXELS_PER_TOKEN
            found.append(Size(width, height))
    return found


def _mismatch(size: Size, asked: Size, limit_px: int) -> float:
    """How far `size` is from the asked ratio and from the full area; a tenth of either counts the same."""
    return abs(math.log(size.aspect / asked.aspect)) + abs(math.log(limit_px / size.area_px)) / 2
