from pathlib import Path

import numpy as np
import torch
from PIL import Image

from licht.evaluation.sheets import write_sheet


def test_a_row_is_as_high_as_its_longest_label(tmp_path: Path) -> None:
    pictures = torch.full((3, 32, 64, 3), 200, dtype=torch.uint8)
    heights = {}
    for name, longest in (("short", "a cube"), ("long", "a small matte blue cube on a teal floor")):
        path = tmp_path / f"{name}.png"
        write_sheet(path, pictures, ["a ball", "a ring", longest], columns=2, scale=1)
        with Image.open(path) as sheet:
            heights[name] = sheet.height
            dark = np.flatnonzero((np.asarray(sheet).max(axis=2) < 100).any(axis=1))
        # the last line ends on the sheet
        assert sheet.height - 16 < dark.max() < sheet.height - 4
    assert heights["long"] - heights["short"] >= 2 * 12


def test_labels_without_end_are_cut(tmp_path: Path) -> None:
    write_sheet(tmp_path / "sheet.png", torch.zeros(1, 32, 64, 3, dtype=torch.uint8), ["word " * 500], scale=1)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height < 200
