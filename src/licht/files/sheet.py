"""A contact sheet: the frames of a story side by side, each over its words. It leaves through the door like any picture."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from licht.core.request import Picture
from licht.safety.images import open_picture

_FRAME_PX = 384
_GAP_PX = 12
_LINE_PX = 18
_LINES = 3


def contact_sheet(frames: Sequence[tuple[Path | bytes, str]], columns: int | None = None) -> Picture:
    """Frames (file, words) in rows of `columns` (default: nearly square), each fitted into a square cell.

    Raises `InvalidImage` for a file that cannot be read.
    """
    columns = columns or math.ceil(math.sqrt(len(frames)))
    rows = math.ceil(len(frames) / columns)
    cell_px = _FRAME_PX + _GAP_PX
    size = (columns * cell_px + _GAP_PX, rows * (cell_px + _LINES * _LINE_PX) + _GAP_PX)
    sheet = Image.new("RGB", size, "white")
    drawing, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for number, (path, words) in enumerate(frames):
        left = _GAP_PX + number % columns * cell_px
        top = _GAP_PX + number // columns * (cell_px + _LINES * _LINE_PX)
        picture = open_picture(path, str(path) if isinstance(path, Path) else f"frame {number + 1}")
        image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
        scale = _FRAME_PX / max(image.size)
        fitted = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
        sheet.paste(fitted, (left + (_FRAME_PX - fitted.width) // 2, top + (_FRAME_PX - fitted.height) // 2))
        lines = textwrap.wrap(f"{number + 1}. {words}", _FRAME_PX // 7)[:_LINES]
        drawing.multiline_text((left, top + _FRAME_PX + 4), "\n".join(lines), "black", font, spacing=3)
    return Picture(sheet.width, sheet.height, sheet.tobytes())
