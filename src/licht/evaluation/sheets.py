"""Contact sheets: pictures side by side with their captions. Made to be looked at, not released."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from licht.world.sheet import wrapped

_GAP_PX: Final = 8
_LINE_PX: Final = 12
_MOST_LINES: Final = 10
"""So many lines of a label are shown: all of most captions, the beginning of structured prompts."""


def write_sheet(path: Path, pictures_BHWC: Tensor, labels: Sequence[str], columns: int = 4, scale: int = 2) -> None:
    """Write uint8 pictures (B, H, W, 3) in rows of `columns`, enlarged by `scale`, each over its label."""
    _, height, width, _ = pictures_BHWC.shape
    size, font = (width * scale, height * scale), ImageFont.load_default(size=10)
    lines = [wrapped(label, font, size[0])[:_MOST_LINES] for label in labels]
    cells = list(zip(pictures_BHWC, lines, strict=True))
    rows = [cells[first : first + columns] for first in range(0, len(cells), columns)]
    heights = [size[1] + max(len(told) for _, told in row) * _LINE_PX + _GAP_PX for row in rows]
    sheet = Image.new("RGB", (columns * (size[0] + _GAP_PX) + _GAP_PX, sum(heights) + _GAP_PX), "white")
    drawing, top = ImageDraw.Draw(sheet), _GAP_PX
    for row, taken in zip(rows, heights, strict=True):
        for column, (picture, told) in enumerate(row):
            left = _GAP_PX + column * (size[0] + _GAP_PX)
            sheet.paste(Image.fromarray(picture.numpy()).resize(size, Image.Resampling.NEAREST), (left, top))
            drawing.multiline_text((left, top + size[1] + 1), "\n".join(told), "black", font, spacing=1)
        top += taken
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
