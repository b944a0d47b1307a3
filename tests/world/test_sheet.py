from pathlib import Path

import pytest
from PIL import Image, ImageFont

from licht.core.errors import InvalidRequest
from licht.world.sheet import SHEET_KINDS, _lines, sheet_cell, write_sheet


@pytest.mark.parametrize("kind", ["mixed", "edit/add", "task/subjects"])
def test_writes_a_sheet(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    write_sheet(path, kind, count=3, seed=1, size_px=64)
    with Image.open(path) as image:
        assert image.width >= 3 * 64
        assert image.height > 64
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 50


@pytest.mark.parametrize("kind", SHEET_KINDS)
def test_every_kind_has_cells(kind: str) -> None:
    pictures, text = sheet_cell(kind, 2, 0)
    assert pictures
    assert text


@pytest.mark.parametrize(
    ("kind", "count", "size_px"), [("zoo", 2, 64), ("edit/zoo", 2, 64), ("one", 0, 64), ("one", 1, 65)]
)
def test_what_cannot_be_drawn_is_refused(kind: str, count: int, size_px: int, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        write_sheet(tmp_path / "sheet.png", kind, count, size_px=size_px)
    assert not (tmp_path / "sheet.png").exists()


def test_words_below_a_picture_end_before_its_edge() -> None:
    font = ImageFont.load_default(11)
    text = "a green character with pointed green body and a red head wearing a wide " + "w" * 40
    lines = _lines(text, font, 120)
    assert " ".join(lines) == text
    assert all(font.getlength(line) <= 120 for line in lines[:-1])
    assert lines[-1] == "w" * 40
