"""References as a language model gets them: side by side on white, not larger than it reads well."""

from collections.abc import Sequence

from PIL import Image

from licht.core.request import Picture
from licht.upsample.ask import MAX_PICTURE_PX


def beside(pictures: Sequence[Picture]) -> Image.Image:
    """All pictures in one row from left to right, at most `MAX_PICTURE_PX` in area."""
    row = Image.new("RGB", (sum(one.width for one in pictures), max(one.height for one in pictures)), "white")
    left = 0
    for one in pictures:
        row.paste(Image.frombytes("RGB", (one.width, one.height), one.rgb), (left, 0))
        left += one.width
    scale = min(1.0, (MAX_PICTURE_PX / (row.width * row.height)) ** 0.5)
    size = (max(round(row.width * scale), 1), max(round(row.height * scale), 1))
    return row if scale == 1.0 else row.resize(size, Image.Resampling.LANCZOS)
