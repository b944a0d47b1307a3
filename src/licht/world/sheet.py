"""Contact sheets: what the world draws, with the words that belong to it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from licht.core.errors import InvalidRequest
from licht.world.captions import caption
from licht.world.edits import EDIT_KINDS, sample_edit
from licht.world.pictures import Photo, Picture, render_pictures
from licht.world.sample import KINDS, Kind, sample_kind, sample_scene
from licht.world.tasks import TASK_KINDS, sample_task
from licht.world.words import Split

SHEET_KINDS: Final = (
    "mixed",
    *KINDS,
    *(f"edit/{kind}" for kind in EDIT_KINDS),
    *(f"task/{kind}" for kind in TASK_KINDS),
)
"""What a sheet can show; an edit is before and after, a task its references and then its target."""
_TEXT_PX: Final = 11
_MARGIN_PX: Final = 6
_WIDE_PX: Final = 1040


def sheet_cell(kind: str, seed: int, index: int, split: Split = "train") -> tuple[list[Picture], str]:
    """The pictures and the text of one cell. Raises `InvalidRequest` for an unknown kind."""
    family, _, name = kind.partition("/")
    if family == "edit" and name in EDIT_KINDS:
        edit = sample_edit(name, seed, index, split=split)
        return [Photo(edit.before), Photo(edit.after)], edit.instructions[0]
    if family == "task" and name in TASK_KINDS:
        task = sample_task(name, seed, index, split=split)
        return [*(reference.picture for reference in task.references), Photo(task.target)], task.instructions[0]
    if kind != "mixed" and kind not in get_args(Kind):
        raise InvalidRequest(f"kind is {kind!r}; expected one of {', '.join(SHEET_KINDS)}", field="kind")
    scene = sample_scene(sample_kind(seed, index) if kind == "mixed" else cast(Kind, kind), seed, index, split=split)
    return [Photo(scene)], caption(scene, seed, index, split=split).text


def _strip(images: NDArray[np.uint8], size_px: int, count: int) -> Image.Image:
    """Pictures beside one another, with room for `count`."""
    strip = Image.new("RGB", (size_px * count, size_px), "white")
    for step, image in enumerate(images):
        strip.paste(Image.fromarray(image), (step * size_px, 0))
    return strip


def captioned(image: Image.Image, text: str, most_lines: int | None = None) -> Image.Image:
    """An image with its text below, or the first `most_lines` of it."""
    font = ImageFont.load_default(_TEXT_PX)
    lines = _lines(text, font, image.width - 2)[:most_lines]
    cell = Image.new("RGB", (image.width, image.height + (_TEXT_PX + 3) * len(lines) + _MARGIN_PX), "white")
    cell.paste(image, (0, 0))
    draw = ImageDraw.Draw(cell)
    for row, line in enumerate(lines):
        draw.text((1, image.height + 2 + row * (_TEXT_PX + 3)), line, fill="black", font=font)
    return cell


def _lines(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width_px: int) -> list[str]:
    """The text in lines that are no wider, as far as no word is."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and font.getlength(longer) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def arranged(cells: Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """Cells of equal width in rows, each as high as its highest cell; as many `columns` as a page is wide, unless told."""
    widest = max(cell.width for cell in cells)
    columns = columns or max(1, min(len(cells), _WIDE_PX // (widest + _MARGIN_PX)))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) for row in rows]
    sheet = Image.new("RGB", (columns * (widest + _MARGIN_PX), sum(heights)), "white")
    for step, row in enumerate(rows):
        for column, cell in enumerate(row):
            sheet.paste(cell, (column * (widest + _MARGIN_PX), sum(heights[:step])))
    return sheet


def write_sheet(
    path: Path, kind: str = "mixed", count: int = 24, seed: int = 0, size_px: int = 128, *, split: Split = "train"
) -> None:
    """Draw `count` samples of a kind (see `SHEET_KINDS`) with their texts and write them as one picture.

    Raises `InvalidRequest` for an unknown kind, a count below 1 or a size that is no multiple of 16 from 64 on.
    """
    if count < 1:
        raise InvalidRequest(f"count is {count}; expected at least 1", field="count")
    drawn = [sheet_cell(kind, seed, index, split) for index in range(count)]
    images = render_pictures([picture for pictures, _ in drawn for picture in pictures], size_px, size_px).numpy()
    most, start, cells = max(len(pictures) for pictures, _ in drawn), 0, []
    for pictures, text in drawn:
        cells.append(captioned(_strip(images[start : start + len(pictures)], size_px, most), text))
        start += len(pictures)
    arranged(cells).save(path)
