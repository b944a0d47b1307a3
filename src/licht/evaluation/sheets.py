"""Contact sheets: pictures side by side with their captions. Made to be looked at, not released."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image
from torch import Tensor

from licht.world.sheet import arranged, captioned

_MOST_LINES: Final = 11
"""So many lines of a label are shown: all of most captions, the beginning of structured prompts."""


def write_sheet(path: Path, pictures_BHWC: Tensor, labels: Sequence[str], columns: int = 4, scale: int = 2) -> None:
    """Write uint8 pictures (B, H, W, 3) in rows of `columns`, enlarged by `scale`, each over its label."""
    _, height, width, _ = pictures_BHWC.shape
    size, cells = (width * scale, height * scale), []
    for picture, label in zip(pictures_BHWC, labels, strict=True):
        image = Image.fromarray(picture.numpy()).resize(size, Image.Resampling.NEAREST)
        cells.append(captioned(image, label, _MOST_LINES))
    path.parent.mkdir(parents=True, exist_ok=True)
    arranged(cells, columns).save(path)
