"""Words in pictures, read by an engine that knows nothing of Licht (RapidOCR: PaddleOCR's networks in ONNX)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image
from torch import Tensor

from licht.core.errors import NotAvailable

ENLARGED: Final = 4
_SAME_LINE: Final = 0.5
"""Two pieces are of one line if they share so much of the lower one's height."""
_INSTALL: Final = "reading words needs RapidOCR: pip install 'lichtung[eval]'"

Reader = Callable[[Tensor], list[str]]
"""uint8 picture (H, W, 3) -> the lines in it, capitals and digits only, from top to bottom."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text, capitals and digits only, and where it stands: in pixels, y downwards."""

    text: str
    left: float
    top: float
    bottom: float

    @classmethod
    def of(cls, corners: Sequence[Sequence[float]], text: str) -> "Piece":
        """From the corners (x, y) of its box and the text as it was read."""
        heights = [y for _, y in corners]
        letters = "".join(each for each in text.upper() if each.isalnum())
        return cls(letters, min(x for x, _ in corners), min(heights), max(heights))


def open_reader() -> Reader:
    """The OCR engine. Its weights are part of its package. Raises `NotAvailable` with the line that installs it."""
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as error:
        raise NotAvailable(_INSTALL) from error
    engine = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)

    def read(picture_HWC: Tensor) -> list[str]:
        image = Image.fromarray(picture_HWC.numpy())
        large = image.resize((image.width * ENLARGED, image.height * ENLARGED), Image.Resampling.BICUBIC)
        # the library takes channels in the order blue, green, red
        found, _ = engine(np.asarray(large)[:, :, ::-1].copy(), use_cls=False)
        return lines_of([Piece.of(corners, text) for corners, text, _ in found or []])

    return read


def lines_of(pieces: Sequence[Piece]) -> list[str]:
    """The lines, from top to bottom, of pieces of text: an engine may find one line in several pieces side by side."""
    lines: list[list[Piece]] = []
    for piece in sorted((each for each in pieces if each.text), key=lambda each: each.top + each.bottom):
        if lines and any(_level(piece, other) for other in lines[-1]):
            lines[-1].append(piece)
        else:
            lines.append([piece])
    return ["".join(each.text for each in sorted(line, key=lambda each: each.left)) for line in lines]


def _level(one: Piece, other: Piece) -> bool:
    shared = min(one.bottom, other.bottom) - max(one.top, other.top)
    return shared >= _SAME_LINE * min(one.bottom - one.top, other.bottom - other.top)


def reads(lines: Sequence[str], asked: Sequence[str]) -> bool:
    """Whether exactly the asked words stand there, line by line."""
    return list(lines) == list(asked)
