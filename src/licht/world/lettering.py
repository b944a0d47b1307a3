"""Printed words: masks of one or two lines of capitals, drawn with the bundled fonts."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from io import BytesIO
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from licht.world import vocabulary as v
from licht.world.scene import Lettering

_FILES: Final = {"sans": "sans.ttf", "serif": "serif.ttf", "typewriter": "typewriter.otf"}
_REFERENCE_PX: Final = 200
_OVERSAMPLING: Final = 4
LINE_PITCH: Final = 1.5
"""Distance of two base lines in cap heights."""

SIGN_CAP_HEIGHT: Final = {"small": 0.26, "medium": 0.36, "large": 0.48}
"""Height of a capital on a board, in world units."""
_BOARD_MARGIN: Final = 0.55
"""Free room around the text of a board, in cap heights."""


@lru_cache(maxsize=64)
def _font(name: v.FontName, size_px: int) -> ImageFont.FreeTypeFont:
    data = files("licht.world").joinpath("fonts", _FILES[name]).read_bytes()
    return ImageFont.truetype(BytesIO(data), size_px, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=3)
def _cap_ratio(name: v.FontName) -> float:
    """Height of a capital H over the font size."""
    _, top, _, bottom = _font(name, _REFERENCE_PX).getbbox("H")
    return float((bottom - top) / _REFERENCE_PX)


def text_size(lines: tuple[str, ...], font: v.FontName) -> tuple[float, float]:
    """(width, height) of the text block in cap heights."""
    reference = _font(font, _REFERENCE_PX)
    cap = _cap_ratio(font) * _REFERENCE_PX
    return max(reference.getlength(line) for line in lines) / cap, 1.0 + LINE_PITCH * (len(lines) - 1)


def board_size(lettering: Lettering) -> tuple[float, float]:
    """(width, height) of a sign's board in world units."""
    width, height = text_size(lettering.lines, lettering.font)
    cap = SIGN_CAP_HEIGHT[lettering.size]
    return cap * (width + 2 * _BOARD_MARGIN), cap * (height + 2 * _BOARD_MARGIN)


@lru_cache(maxsize=512)
def text_mask(lines: tuple[str, ...], font: v.FontName, cap_px: int, margin_px: int = 0) -> NDArray[np.uint8]:
    """Coverage 0..255 of the text, lines centred, capitals `cap_px` high, with a free margin; shape (height, width)."""
    fine = _OVERSAMPLING
    cap = cap_px * fine
    face = _font(font, max(1, round(cap / _cap_ratio(font))))
    lengths = [face.getlength(line) for line in lines]
    pitch = round(LINE_PITCH * cap_px) * fine
    width = (int(max(lengths)) // fine + 2 + 2 * margin_px) * fine
    height = (cap_px + 1 + 2 * margin_px) * fine + pitch * (len(lines) - 1)
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    for row, (line, length) in enumerate(zip(lines, lengths, strict=True)):
        base = margin_px * fine + cap + row * pitch
        draw.text((round((width - length) / 2), base), line, font=face, fill=255, anchor="ls")
    return np.asarray(image.resize((width // fine, height // fine), Image.Resampling.BOX))


def overlay_cap_px(lettering: Lettering, shorter_px: int) -> int:
    """Height in pixels of a capital of text over the scene."""
    return max(4, round(v.TEXT_CAP_HEIGHT[lettering.size] * shorter_px))


def overlay_box(lettering: Lettering, aspect: float) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of text over the scene, in halves of the shorter side from the middle, y upwards."""
    cap = 2 * v.TEXT_CAP_HEIGHT[lettering.size]
    width, height = text_size(lettering.lines, lettering.font)
    half_width, half_height = cap * width / 2, max(1.0, 1.0 / aspect)
    edge = half_height - overlay_margin(half_height)
    if lettering.place == "top":
        return -half_width, edge, half_width, edge - cap * height
    return -half_width, cap * height - edge, half_width, -edge


def overlay_margin(half_height: float) -> float:
    """Distance of text over the scene from the picture's upper or lower edge, in halves of the shorter side."""
    return 0.10 * half_height


def overlay_mask(lettering: Lettering, width_px: int, height_px: int) -> NDArray[np.uint8]:
    """Coverage 0..255 of text over the scene for a whole picture, shape (height, width)."""
    shorter = min(width_px, height_px)
    text = text_mask(lettering.lines, lettering.font, overlay_cap_px(lettering, shorter))
    mask = np.zeros((height_px, width_px), np.uint8)
    rows, columns = text.shape
    rows, columns = min(rows, height_px), min(columns, width_px)
    margin = round(overlay_margin(height_px / shorter) * shorter / 2)
    top = margin if lettering.place == "top" else height_px - margin - rows
    left = (width_px - columns) // 2
    cut = (text.shape[1] - columns) // 2
    mask[top : top + rows, left : left + columns] = text[:rows, cut : cut + columns]
    return mask


@dataclass(frozen=True, slots=True)
class LetterBox:
    """Where a letter of text over the scene stands: its advance by the height of a capital, in pixels of the picture."""

    letter: str
    left: float
    top: float
    right: float
    bottom: float


def overlay_letters(lettering: Lettering, width_px: int, height_px: int) -> list[LetterBox]:
    """The letters that `overlay_mask` draws, line by line; those beside the picture too."""
    shorter = min(width_px, height_px)
    cap = overlay_cap_px(lettering, shorter)
    face = _font(lettering.font, max(1, round(cap * _OVERSAMPLING / _cap_ratio(lettering.font))))
    rows = text_mask(lettering.lines, lettering.font, cap).shape[0]
    margin = round(overlay_margin(height_px / shorter) * shorter / 2)
    first_top = margin if lettering.place == "top" else height_px - margin - min(rows, height_px)
    found = []
    for number, line in enumerate(lettering.lines):
        top = first_top + round(LINE_PITCH * cap) * number
        start = width_px / 2 - face.getlength(line) / _OVERSAMPLING / 2
        ends = [start + face.getlength(line[:count]) / _OVERSAMPLING for count in range(len(line) + 1)]
        found += [
            LetterBox(letter, left, top, right, top + cap)
            for letter, (left, right) in zip(line, pairwise(ends), strict=True)
        ]
    return found


@lru_cache(maxsize=256)
def board_texture(lines: tuple[str, ...], font: v.FontName, cap_px: int) -> NDArray[np.uint8]:
    """Coverage 0..255 of the text on a whole board: the text block and its margins, capitals `cap_px` high."""
    cap_px = max(4, cap_px)
    text = text_mask(lines, font, cap_px)
    width, height = text_size(lines, font)
    texture = np.zeros(
        (round(cap_px * (height + 2 * _BOARD_MARGIN)), round(cap_px * (width + 2 * _BOARD_MARGIN))), np.uint8
    )
    top, left = (texture.shape[0] - text.shape[0]) // 2, (texture.shape[1] - text.shape[1]) // 2
    texture[top : top + text.shape[0], left : left + text.shape[1]] = text
    return texture
