"""Contact sheets: pictures side by side with their captions. Made to be looked at, not released."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_GAP_PX, _LINE_PX, _LABEL_LINES = 8, 12, 3


def write_sheet(path: Path, pictures_BHWC: Tensor, labels: Sequence[str], columns: int = 4, scale: int = 2) -> None:
    """Write uint8 pictures (B, H, W, 3) in rows of `columns`, enlarged by `scale`, each over its label."""
    count, height, width, _ = pictures_BHWC.shape
    cell_w, cell_h = width * scale + _GAP_PX, height * scale + _LABEL_LINES * _LINE_PX + _GAP_PX
    rows = -(-count // columns)
    sheet = Image.new("RGB", (columns * cell_w + _GAP_PX, rows * cell_h + _GAP_PX), "white")
    drawing, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=10)
    for number, (picture, label) in enumerate(zip(pictures_BHWC, labels, strict=True)):
        left, top = _GAP_PX + number % columns * cell_w, _GAP_PX + number // columns * cell_h
        image = Image.fromarray(picture.numpy()).resize((width * scale, height * scale), Image.Resampling.NEAREST)
        sheet.paste(image, (left, top))
        lines = textwrap.wrap(label, width * scale // 5)[:_LABEL_LINES]
        drawing.multiline_text((left, top + height * scale + 1), "\n".join(lines), "black", font, spacing=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
