"""What a new user gets: ten prompts, three edits and three pictures from references, each drawn once with the same seed.

Edits and references begin from pictures that the model has drawn itself. Nothing is chosen among several tries, and
nothing is marked: without the watermark, which in so small pictures can be seen:

    .venv/bin/python benchmarks/first_tries.py --model nano -o docs/images/nano.webp
"""

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import licht
from licht.generate import Model

PROMPTS = (
    "a large shiny red sphere on a gray floor, light from the left",
    "a small matte yellow cone on a wooden floor",
    "a big green cylinder on the left and a small blue cube on the right, white floor",
    "a purple torus in front of an orange capsule on a beige floor",
    "three small cubes in a row, red, green and blue, on a white floor",
    "a metal sphere on a checkered floor, warm light from the right",
    "a striped red and white cylinder on a lilac floor",
    "a cube in #30a0c0 on a gray floor",
    "a small character with a blue body, an orange head and a red hat on a beige floor",
    'a shiny orange cube on a gray floor, the word "SUN" on top',
)
EDITS = ((0, "make the sphere blue"), (2, "remove the cube"), (0, "change the floor to a wooden floor"))
"""Which of the pictures above, and what is to become of it."""
SUBJECTS = (
    "a large matte red cone on a gray floor",
    "a small shiny blue sphere on a white floor",
    "a large matte green cube on a beige floor",
)
TASKS = (
    ((0, 1), "the object of image 1 to the left of the object of image 2 on a white floor"),
    ((2, 1), "the object from image 2 to the right of the object from image 1, on a beige floor, light from the left"),
    ((0, 1, 2), "the objects of image 1, image 2 and image 3 in a row on a gray floor"),
)
COLUMNS = 20
"""Of which a picture of its own takes four."""
COLUMN_PX = 50
GAP_PX = 8
TEXT_PX = 13


@dataclass(frozen=True, slots=True)
class Tile:
    """What was asked, and the pictures from which and into which it was drawn."""

    text: str
    pictures: Sequence[Image.Image]
    columns: int
    """The width of each picture."""


def tries(model: Model, seed: int) -> list[list[Tile]]:
    """Rows of tiles: prompts, edits, references."""

    def draw(text: str, references: Sequence[Image.Image] = ()) -> Image.Image:
        return model.generate(text, images=list(references), seed=seed)[0].image.convert("RGB")

    drawn = [draw(text) for text in PROMPTS]
    subjects = [draw(text) for text in SUBJECTS]
    pictures = [Tile(text, [picture], 4) for text, picture in zip(PROMPTS, drawn, strict=True)]
    edits = [Tile(text, [drawn[at], draw(text, [drawn[at]])], 3) for at, text in EDITS]
    tasks = [
        Tile(text, [*(subjects[at] for at in shown), draw(text, [subjects[at] for at in shown])], 2)
        for shown, text in TASKS
    ]
    return [pictures[:5], pictures[5:], edits, tasks]


def _cell(tile: Tile) -> Image.Image:
    side = tile.columns * COLUMN_PX - GAP_PX
    font = ImageFont.load_default(TEXT_PX)
    width = len(tile.pictures) * (side + GAP_PX)
    lines = textwrap.wrap(tile.text, int(width / (TEXT_PX * 0.54)))
    cell = Image.new("RGB", (width, side + (TEXT_PX + 4) * len(lines) + 2 * GAP_PX), "white")
    for step, picture in enumerate(tile.pictures):
        cell.paste(picture.resize((side, side), Image.Resampling.LANCZOS), (step * (side + GAP_PX), 0))
    for row, line in enumerate(lines):
        place = (1, side + GAP_PX // 2 + row * (TEXT_PX + 4))
        ImageDraw.Draw(cell).text(place, line, fill="black", font=font)
    return cell


def sheet(rows: Sequence[Sequence[Tile]]) -> Image.Image:
    """All rows below one another, each cell with its words."""
    cells = [[_cell(tile) for tile in row] for row in rows]
    heights = [max(cell.height for cell in row) for row in cells]
    whole = Image.new("RGB", (COLUMNS * COLUMN_PX + GAP_PX, sum(heights) + GAP_PX), "white")
    top = GAP_PX
    for row, height in zip(cells, heights, strict=True):
        left = GAP_PX
        for cell in row:
            whole.paste(cell, (left, top))
            left += cell.width
        top += height
    return whole


def main() -> None:
    """Draw everything and write one picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help="a model's name or folder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    sheet(tries(licht.load(options.model, policy="off"), options.seed)).save(options.output, quality=90)


if __name__ == "__main__":
    main()
