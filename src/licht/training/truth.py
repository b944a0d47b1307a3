"""What is known of every token of a rendered picture: labels and numbers that a layer can learn to tell.

Of each of a token's four latent positions: the kind, colour and material of what is seen there, and the letter of text
over the scene. Of the object in a token's middle: its pattern and size, how far it reaches, and its colours as numbers,
so that colours without a name are known too. Of the whole scene, the same in every token: floor, light and camera.

Shapes: B pictures, L latent tokens, K entries of a token, H and W pixels.
"""

import string
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from licht.training.config import Stream
from licht.training.files import not_written
from licht.training.pictures import Work, fill_missing, map_rows
from licht.training.semantic import CLASSES, POSITION_PX, UNKNOWN, labels_of
from licht.world import vocabulary as v
from licht.world.lettering import overlay_letters
from licht.world.maps import LETTERING, render_maps
from licht.world.scene import Scene, Subject, Thing

_TOKEN_PX: Final = 2 * POSITION_PX
LETTERS: Final = string.ascii_uppercase + string.digits
POSITIONS: Final = 4
POSITION_CLASSES: Final = (*CLASSES, len(LETTERS))
OBJECT_CLASSES: Final = (len(v.PATTERNS), len(v.SIZES))
SCENE_CLASSES: Final = tuple(
    len(choices)
    for choices in (
        v.FLOOR_NAMES,
        v.LIGHT_SIDES,
        v.LIGHT_HEIGHTS,
        v.WARMTHS,
        v.SPOTS,
        v.CAMERA_HEIGHTS,
        v.CAMERA_DISTANCES,
    )
)
REACH: Final = 4
COLORS: Final = 6
"""Red, green and blue of an object's colour, and of its second one: a pattern's, or of a character the head's."""
ENTRIES: Final = POSITIONS * len(POSITION_CLASSES) + len(OBJECT_CLASSES) + len(SCENE_CLASSES) + REACH + COLORS
FINEST: Final = 254
"""Numbers are kept as so many parts: reaches of the picture's width and height, colours of full brightness."""


def token_truth(scenes: list[Scene], width_px: int, height_px: int) -> Tensor:
    """uint8 (B, L, `ENTRIES`): labels of positions, object and scene; left, top, right and bottom of the object; colours.

    The object is that in the token's middle, its reach that of what is seen of it. `UNKNOWN` stands where there is
    nothing to tell.
    """
    fine_BHW = render_maps(scenes, width_px, height_px).instance_BHW
    positions = torch.cat([labels_of(scenes, fine_BHW), _letters(scenes, fine_BHW)], dim=3)
    rows, columns = height_px // _TOKEN_PX, width_px // _TOKEN_PX
    positions = (
        positions.view(len(scenes), rows, 2, columns, 2, -1).transpose(2, 3).reshape(len(scenes), rows * columns, -1)
    )
    middle_BL = fine_BHW[:, _TOKEN_PX // 2 :: _TOKEN_PX, _TOKEN_PX // 2 :: _TOKEN_PX].flatten(1)
    objects = torch.full((*middle_BL.shape, len(OBJECT_CLASSES)), UNKNOWN, dtype=torch.uint8)
    numbers = torch.full((*middle_BL.shape, REACH + COLORS), UNKNOWN, dtype=torch.uint8)
    for row, scene in enumerate(scenes):
        for number, subject in enumerate(scene.subjects):
            here = middle_BL[row] == number
            if bool(here.any()):
                objects[row, here] = torch.tensor(_classes(subject), dtype=torch.uint8)
                seen = _reach(fine_BHW[row] == number)
                numbers[row, here] = torch.tensor([*seen, *_colors(subject)], dtype=torch.uint8)
    whole = torch.tensor([_scene(scene) for scene in scenes], dtype=torch.uint8)[:, None]
    return torch.cat([positions, objects, whole.expand(-1, rows * columns, -1), numbers], dim=2)


def _letters(scenes: list[Scene], fine_BHW: Tensor) -> Tensor:
    """uint8 (B, H / 8, W / 8, 1): the letter of each latent position with any part of one: that nearest to its middle."""
    height, width = fine_BHW.shape[1:]
    found = torch.full((len(scenes), height // POSITION_PX, width // POSITION_PX, 1), UNKNOWN, dtype=torch.uint8)
    lettered = F.max_pool2d((fine_BHW == LETTERING).float(), POSITION_PX).bool()
    for row, scene in enumerate(scenes):
        if scene.lettering is None or not bool(lettered[row].any()):
            continue
        boxes = overlay_letters(scene.lettering, width, height)
        sides = torch.tensor([[box.left, box.top, box.right, box.bottom] for box in boxes])
        y, x = ((torch.nonzero(lettered[row]).T + 0.5) * POSITION_PX)[:, :, None]
        beside = (sides[:, 0] - x).clamp(min=0) + (x - sides[:, 2]).clamp(min=0)
        beyond = (sides[:, 1] - y).clamp(min=0) + (y - sides[:, 3]).clamp(min=0)
        numbers = torch.tensor([LETTERS.index(box.letter) for box in boxes], dtype=torch.uint8)
        found[row, lettered[row], 0] = numbers[(beside + beyond).argmin(1)]
    return found


def _reach(seen_HW: Tensor) -> list[int]:
    ends = []
    for axis, pixels in ((0, seen_HW.shape[1]), (1, seen_HW.shape[0])):
        along = torch.nonzero(seen_HW.any(axis))[:, 0]
        ends.append([int(along[0]) / pixels, (int(along[-1]) + 1) / pixels])
    (left, right), (top, bottom) = ends
    return [_part(value) for value in (left, top, right, bottom)]


def _part(value: float) -> int:
    return round(value * FINEST)


def _classes(subject: Subject) -> tuple[int, ...]:
    if not isinstance(subject, Thing):
        return (UNKNOWN,) * len(OBJECT_CLASSES)
    return v.PATTERNS.index(subject.pattern), v.SIZES.index(subject.size)


def _colors(subject: Subject) -> tuple[int, ...]:
    if isinstance(subject, Thing):
        first, second = subject.color, subject.second
    else:
        first, second = subject.body_color, subject.head_color
    parts: list[int] = []
    for color in (first, second):
        parts += [UNKNOWN] * 3 if color is None else [_part(value) for value in v.srgb_of(v.hex_of(color))]
    return tuple(parts)


def _scene(scene: Scene) -> tuple[int, ...]:
    light, camera = scene.light, scene.camera
    return (
        v.FLOOR_NAMES.index(scene.floor.name),
        v.LIGHT_SIDES.index(light.side),
        v.LIGHT_HEIGHTS.index(light.height),
        v.WARMTHS.index(light.warmth),
        v.SPOTS.index(light.spot),
        v.CAMERA_HEIGHTS.index(camera.height),
        v.CAMERA_DISTANCES.index(camera.distance),
    )


Scenes = Callable[[Stream, int, int], list[Scene]]
"""(stream, first row, count) -> what the targets of those rows show."""


def _labels(scenes: Scenes, stream: Stream, first: int, count: int) -> np.ndarray:
    return token_truth(scenes(stream, first, count), *stream.size_px).numpy()


class TruthStore:
    """What the targets of a stream show, prepared once and mapped."""

    def __init__(self, path: Path, stream: Stream) -> None:
        """Open the file, or create it empty: also where it was made for other rows or other entries."""
        self._stream, self._progress = stream, path.with_suffix(".done")
        shape = (stream.rows, stream.grid[0] * stream.grid[1], ENTRIES)
        try:
            self._known = map_rows(path, shape, np.uint8, self._progress)
        except OSError as error:
            raise not_written(path, error) from error

    def fill(self, scenes: Scenes, chunk: int, on_progress: Callable[[str, int, int], None], workers: int = 1) -> None:
        """Label what is missing; goes on after an interruption."""
        told = partial(on_progress, f"what stands where in {self._stream.name}")
        work = Work(partial(_labels, scenes, self._stream), self._write, chunk, workers)
        fill_missing(self._progress, self._stream.rows, work, told)

    def _write(self, rows: slice, labels: np.ndarray) -> None:
        self._known[rows] = labels

    def rows(self, captions: Tensor) -> Tensor:
        """uint8 (B, L, K) of the rows whose captions are numbered `captions` (B,)."""
        return torch.from_numpy(self._known[captions.numpy() // self._stream.captions])
