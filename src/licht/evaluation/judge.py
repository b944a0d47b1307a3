"""The judge: a small recogniser that says what is in a picture of the rendered world. Only for measuring.

It is trained on rendered pictures (`judge_training`) and never on what a model drew. Shapes: B pictures, C channels,
H and W cells of 4 px.
"""

import importlib.resources
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from licht.core.errors import InvalidCheckpoint, NotAvailable
from licht.evaluation.seen import OBJECT_CATEGORIES, PICTURE_CATEGORIES, Seen, SeenObject

CELL_PX: Final = 4
BOX, RGB = 4, 3
_STEM, _NEAR, _MIDDLE, _FAR, _HEAD = 32, 48, 64, 96, 64
_FILE: Final = "judge.safetensors"
_THRESHOLD: Final = 0.35
"""Least certainty of an object: measured to be the best on held-out renders."""
_AT_ONCE: Final = 32


def _convolution(in_channels: int, out_channels: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class _Residual(nn.Module):
    """Two convolutions beside a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out: Tensor = F.relu(x_BCHW + self.second(self.first(x_BCHW)))
        return out


@dataclass(frozen=True, slots=True)
class Outputs:
    """Raw answers. `cells` (B, C, H, W): certainty, box, colour, then the logits of each object category in turn."""

    cells_BCHW: Tensor
    picture_BC: Tensor


class JudgeNetwork(nn.Module):
    """A pyramid of three resolutions; objects are read off its finest level, the picture off its coarsest."""

    def __init__(self) -> None:
        """0.9 M parameters."""
        super().__init__()
        self.stem = _convolution(3, _STEM, stride=2, kernel=5)
        self.near = nn.Sequential(_convolution(_STEM, _NEAR, 2), _Residual(_NEAR), _Residual(_NEAR))
        self.middle = nn.Sequential(_convolution(_NEAR, _MIDDLE, 2), _Residual(_MIDDLE), _Residual(_MIDDLE))
        self.far = nn.Sequential(_convolution(_MIDDLE, _FAR, 2), _Residual(_FAR), _Residual(_FAR))
        self.from_far = nn.Conv2d(_FAR, _MIDDLE, 1)
        self.joined = _convolution(_MIDDLE, _HEAD)
        self.from_near = nn.Conv2d(_NEAR, _HEAD, 1)
        self.fine = _Residual(_HEAD)
        answers = 1 + BOX + RGB + sum(len(names) for names in OBJECT_CATEGORIES.values())
        last = nn.Conv2d(96, answers, 1)
        with torch.no_grad():
            dict(last.named_parameters())["bias"].narrow(0, 0, 1).fill_(-3.0)  # nearly every cell is empty
        self.objects = nn.Sequential(_convolution(_HEAD, 96), last)
        questions = sum(len(names) for names in PICTURE_CATEGORIES.values())
        self.picture = nn.Sequential(nn.Linear(2 * _FAR + _MIDDLE, 96), nn.ReLU(), nn.Linear(96, questions))

    def forward(self, image_BCHW: Tensor) -> Outputs:
        """Images in [-1, 1], sides multiples of 16."""
        near, middle, far = self._pyramid(image_BCHW)
        up = self.joined(middle + F.interpolate(self.from_far(far), scale_factor=2.0))
        fine = self.fine(self.from_near(near) + F.interpolate(up, scale_factor=2.0))
        return Outputs(self.objects(fine), self.picture(_pooled(middle, far)))

    def features(self, image_BCHW: Tensor) -> Tensor:
        """(B, 256): what the picture's own answers are read from, for distances between sets of pictures."""
        _, middle, far = self._pyramid(image_BCHW)
        return _pooled(middle, far)

    def _pyramid(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        near = self.near(self.stem(image_BCHW))
        middle = self.middle(near)
        return near, middle, self.far(middle)


def _pooled(middle: Tensor, far: Tensor) -> Tensor:
    return torch.cat([far.mean((2, 3)), far.amax((2, 3)), middle.mean((2, 3))], dim=1)


def split_by(categories: Mapping[str, Sequence[str]], answers_BC: Tensor) -> dict[str, Tensor]:
    """The logits of each category: slices along axis 1."""
    return dict(zip(categories, answers_BC.split([len(names) for names in categories.values()], 1), strict=True))


class Judge:
    """Looks at pictures."""

    def __init__(self, network: JudgeNetwork) -> None:
        """Use a trained network."""
        self.network = network.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: Path | None = None) -> "Judge":
        """The judge that is shipped, or the one in a file. Raises `NotAvailable`, `InvalidCheckpoint`."""
        file = path or Path(str(importlib.resources.files("licht.evaluation").joinpath(_FILE)))
        if not file.is_file():
            raise NotAvailable(f"there is no judge at {file}; train one with `licht train nano_judge`")
        network = JudgeNetwork()
        try:
            tensors = load_file(file)
            network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)
            missing = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")} - set(tensors)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise InvalidCheckpoint(f"{file} is not a judge of this version ({error}); train it again") from error
        if missing:
            raise InvalidCheckpoint(f"{file} lacks {', '.join(sorted(missing)[:3])}; train the judge again")
        return cls(network)

    @torch.inference_mode()
    def features(self, pictures_BHWC: Tensor) -> Tensor:
        """(B, 256) float32 of uint8 pictures (B, H, W, 3)."""
        return torch.cat([self.network.features(image) for image in _images(pictures_BHWC)])

    @torch.inference_mode()
    def look(self, pictures_BHWC: Tensor) -> list[Seen]:
        """What is in each uint8 picture (B, H, W, 3), sides multiples of 16."""
        found: list[Seen] = []
        for image in _images(pictures_BHWC):
            outputs = self.network(image)
            pictures = split_by(PICTURE_CATEGORIES, outputs.picture_BC)
            found += [
                Seen(_objects(cells), {name: _best(PICTURE_CATEGORIES[name], pictures[name][at]) for name in pictures})
                for at, cells in enumerate(outputs.cells_BCHW)
            ]
        return found


def _images(pictures_BHWC: Tensor) -> Iterator[Tensor]:
    """Some at a time, in [-1, 1]."""
    for part in pictures_BHWC.split(_AT_ONCE):
        yield part.permute(0, 3, 1, 2).float() / 127.5 - 1


def _best(names: Sequence[str], logits: Tensor) -> str:
    return names[int(logits.argmax())]


def _objects(cells_CHW: Tensor) -> tuple[SeenObject, ...]:
    """Objects at the peaks of certainty, the surest first; of two whose boxes nearly agree only the surer."""
    heat = cells_CHW[0].sigmoid()
    peaks = (heat == F.max_pool2d(heat[None, None], 3, 1, 1)[0, 0]) & (heat >= _THRESHOLD)
    rows, columns = peaks.nonzero(as_tuple=True)
    order = heat[rows, columns].argsort(descending=True)
    found: list[SeenObject] = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        one = _object(cells_CHW[:, row, column], row, column, heat.shape)
        if all(_overlap(one.box, other.box) < 0.7 for other in found):
            found.append(one)
    return tuple(found)


def _object(answers_C: Tensor, row: int, column: int, shape: torch.Size) -> SeenObject:
    height, width = shape
    dx, dy, w, h = answers_C[1 : 1 + BOX].tolist()
    x, y = (column + 0.5 + dx) / width, (row + 0.5 + dy) / height
    red, green, blue = (round(255 * value) for value in answers_C[1 + BOX : 1 + BOX + RGB].clamp(0, 1).tolist())
    logits = split_by(OBJECT_CATEGORIES, answers_C[None, 1 + BOX + RGB :])
    named = {name: _best(OBJECT_CATEGORIES[name], logits[name][0]) for name in OBJECT_CATEGORIES}
    return SeenObject(
        _consistent(named),
        f"#{red:02x}{green:02x}{blue:02x}",
        (x, y),
        (x - w / 2, y - h / 2, x + w / 2, y + h / 2),
        float(answers_C[0].sigmoid()),
    )


def _consistent(named: dict[str, str]) -> dict[str, str]:
    """Only what such an object has: no size of characters, no hat of things, no second colour of what is plain."""
    if named["kind"].endswith("character"):
        kept = ["kind", "color", "head", "hat", "facing", "arms", "carried"]
        kept += ["hat_color"] if named["hat"] != "none" else []
    else:
        kept = ["kind", "color", "size", "material", "pattern", "carried"]
        kept += ["second"] if named["pattern"] != "plain" else []
    return {name: named[name] for name in kept}


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Shared area over joint area."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / max(sum(areas) - shared, 1e-9)
