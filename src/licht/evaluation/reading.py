"""Words in pictures, read by an engine that knows nothing of Licht (RapidOCR: PaddleOCR's networks in ONNX)."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from PIL import Image
from torch import Tensor

from licht.core.errors import NotAvailable

ENLARGED: Final = 4
_INSTALL: Final = "reading words needs RapidOCR: pip install 'lichtung[eval]'"

Reader = Callable[[Tensor], list[str]]
"""uint8 picture (H, W, 3) -> the lines in it, capitals and digits only, from top to bottom."""


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
        placed = sorted((min(point[1] for point in corners), text) for corners, text, _ in found or [])
        return ["".join(each for each in text.upper() if each.isalnum()) for _, text in placed]

    return read


def reads(lines: Sequence[str], asked: Sequence[str]) -> bool:
    """Whether exactly the asked words stand there: line by line, or each as a line of its own."""
    return list(lines) == list(asked) or "".join(lines) == "".join(asked)
