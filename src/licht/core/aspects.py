"""Aspect ratios by name, and the size that a ratio and a number of pixels make."""

import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from licht.core.errors import InvalidRequest
from licht.core.sizes import MAX_AREA_PX, MAX_ASPECT, MIN_SIDE_PX, PIXELS_PER_TOKEN, Size, check_size

MEGAPIXEL_PX: Final = 1024 * 1024
MIN_MEGAPIXELS: Final = MIN_SIDE_PX**2 / MEGAPIXEL_PX
MAX_MEGAPIXELS: Final = MAX_AREA_PX / MEGAPIXEL_PX

NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "square": "1:1",
        "landscape": "4:3",
        "portrait": "3:4",
        "photo": "3:2",
        "wide": "16:9",
        "tall": "9:16",
        "cinema": "21:9",
    }
)
_RATIO: Final = re.compile(r"\s*(\d{1,4})\s*:\s*(\d{1,4})\s*")


def parse_aspect(text: str) -> float:
    """Width divided by height, of a name or of W:H. Raises `InvalidRequest`."""
    match = _RATIO.fullmatch(NAMES.get(text.strip().lower(), text))
    if match is None or not int(match[1]) or not int(match[2]):
        names = ", ".join(NAMES)
        raise InvalidRequest(f"aspect {text!r} is unknown; use W:H such as 3:2, or one of {names}", field="aspect")
    aspect = int(match[1]) / int(match[2])
    if max(aspect, 1 / aspect) > MAX_ASPECT:
        raise InvalidRequest(f"aspect {text!r} is longer than {MAX_ASPECT}:1; choose a squarer one", field="aspect")
    return aspect


def check_megapixels(megapixels: float) -> float:
    """Return `megapixels`, or raise `InvalidRequest` if so many cannot be drawn."""
    if not MIN_MEGAPIXELS <= megapixels <= MAX_MEGAPIXELS:
        raise InvalidRequest(
            f"{megapixels:g} megapixels is out of range; use {MIN_MEGAPIXELS:.3g} to {MAX_MEGAPIXELS:g}",
            field="megapixels",
        )
    return megapixels


def asked_size(aspect: str | None, megapixels: float | None, usual: Size, trained: Sequence[Size] = ()) -> Size | None:
    """The size of a ratio and an area, each as in `usual` where it is not given; None where neither is.

    Raises `InvalidRequest`.
    """
    if aspect is None and megapixels is None:
        return None
    ratio = usual.aspect if aspect is None else parse_aspect(aspect)
    area_px = usual.area_px if megapixels is None else check_megapixels(megapixels) * MEGAPIXEL_PX
    return size_from(ratio, area_px, trained)


def size_from(aspect: float, area_px: float, trained: Sequence[Size] = ()) -> Size:
    """The drawable size nearest to this ratio and area; a trained size of (nearly) the ratio and area is preferred."""
    for size in trained:
        if math.isclose(size.aspect, aspect, rel_tol=0.02) and math.isclose(size.area_px, area_px, rel_tol=0.1):
            return size
    ideal = math.sqrt(area_px * aspect) / PIXELS_PER_TOKEN
    candidates = []
    for columns in range(max(math.floor(ideal) - 2, 1), math.ceil(ideal) + 3):
        for rows in {math.floor(columns / aspect), math.ceil(columns / aspect)}:
            size = Size(*(max(side * PIXELS_PER_TOKEN, MIN_SIDE_PX) for side in (columns, rows)))
            if size.area_px <= MAX_AREA_PX and max(size.aspect, 1 / size.aspect) <= MAX_ASPECT:
                candidates.append(size)
    if not candidates:
        raise InvalidRequest("no size has that aspect and that many megapixels; change one of them", field="megapixels")
    return check_size(min(candidates, key=lambda size: _mismatch(size, aspect, area_px)))


def _mismatch(size: Size, aspect: float, area_px: float) -> float:
    """How far off a size is; the ratio counts more than the area."""
    return 2 * abs(math.log(size.aspect / aspect)) + abs(math.log(size.area_px / area_px))
