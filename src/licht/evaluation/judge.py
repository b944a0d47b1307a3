"""The judge: a small recogniser that says what is in a picture of the rendered world. Only for measuring.

It is trained on rendered pictures (`judge_training`) and never on what a model drew. Shapes: B pictures, N things in
all of them, C channels, H and W cells.
"""

import importlib.resources
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from licht.core.errors import InvalidCheckpoint, NotAvailable
from licht.evaluation.judge_networks import BOX, MARGIN, JudgeNetwork, Near, Spots, boxes_of, overlaps, places_of
from licht.evaluation.seen import OBJECT_CATEGORIES, PICTURE_CATEGORIES, Seen, SeenObject

_FILE: Final = "judge.safetensors"
_WORTH_A_LOOK: Final = 0.2
"""Least certainty of the finder at which a place is looked at from near ..."""
_THERE: Final = 0.5
"""... and of that look, at which a thing is there."""
_SAME: Final = 0.5
"""Of two boxes that overlap so much only the surer one is kept."""
_MOST: Final = 24
_AT_ONCE: Final = 32


def split_by(categories: Mapping[str, Sequence[str]], answers_BC: Tensor) -> dict[str, Tensor]:
    """The logits of each category: slices along axis 1."""
    return dict(zip(categories, answers_BC.split([len(names) for names in categories.values()], 1), strict=True))


def judge_file() -> Path:
    """Where the judge that is shipped lies."""
    return Path(str(importlib.resources.files("licht.evaluation").joinpath(_FILE)))


class Judge:
    """Looks at pictures."""

    def __init__(self, network: JudgeNetwork) -> None:
        """Use a trained network."""
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    @classmethod
    def load(cls, path: Path | None = None) -> "Judge":
        """The judge that is shipped, or the one in a file. Raises `NotAvailable`, `InvalidCheckpoint`."""
        file = path or judge_file()
        if not file.is_file():
            raise NotAvailable(f"there is no judge at {file}; train one with `licht train nano_judge`")
        network = JudgeNetwork()
        try:
            tensors = load_file(file)
            network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise InvalidCheckpoint(f"{file} is not a judge of this version ({error}); train it again") from error
        missing = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")} - set(tensors)
        if missing:
            raise InvalidCheckpoint(f"{file} lacks {', '.join(sorted(missing)[:3])}; train the judge again")
        return cls(network)

    @torch.inference_mode()
    def features(self, pictures_BHWC: Tensor) -> Tensor:
        """(B, 256) float32 of uint8 pictures (B, H, W, 3)."""
        return torch.cat([self.network.find(image).pooled_BC for image in _images(pictures_BHWC)])

    @torch.inference_mode()
    def look(self, pictures_BHWC: Tensor) -> list[Seen]:
        """What is in each uint8 picture (B, H, W, 3), sides multiples of 16."""
        found: list[Seen] = []
        for image in _images(pictures_BHWC):
            found += self._look(image)
        return found

    def _look(self, image_BCHW: Tensor) -> list[Seen]:
        glance = self.network.find(image_BCHW)
        context, picture = self.network.look_far(image_BCHW, glance)
        spots = peaks(glance.cells_BCHW)
        near = self.network.look_near(image_BCHW, glance, context, spots) if len(spots.at_N) else None
        things: list[tuple[SeenObject, ...]] = [()] * len(image_BCHW)
        if near is not None:
            refined = refine(spots.boxes_N4, near.box_NK, image_BCHW.shape[2] / image_BCHW.shape[3])
            things = [_things(near, refined, (spots.at_N == at).nonzero()[:, 0]) for at in range(len(image_BCHW))]
        logits = split_by(PICTURE_CATEGORIES, picture)
        return [
            Seen(things[number], {name: _best(PICTURE_CATEGORIES[name], logits[name][number]) for name in logits})
            for number in range(len(image_BCHW))
        ]


def peaks(cells_BCHW: Tensor) -> Spots:
    """Where the finder is surer than around, at most 24 times in a picture."""
    height, width = cells_BCHW.shape[2:]
    heat = cells_BCHW[:, 0].sigmoid()
    tops = heat * ((heat == F.max_pool2d(heat[:, None], 3, 1, 1)[:, 0]) & (heat >= _WORTH_A_LOOK))
    values, index = tops.flatten(1).topk(min(_MOST, height * width))
    at, rank = (values > 0).nonzero(as_tuple=True)
    cell = index[at, rank]
    row, column = cell // width, cell % width
    x, y, w, h = cells_BCHW[at, 1 : 1 + BOX, row, column].unbind(1)
    place = torch.stack([(column + 0.5 + x) / width, (row + 0.5 + y) / height, w.clamp(min=0.02), h.clamp(min=0.02)], 1)
    return Spots(at, boxes_of(place), torch.stack([(column + 0.5) / width, (row + 0.5) / height], 1))


def refine(boxes_N4: Tensor, answer_NK: Tensor, aspect: float) -> Tensor:
    """Boxes as the near look corrects them; `aspect` is the picture's height over its width."""
    place = places_of(boxes_N4)
    side = MARGIN * torch.maximum(place[:, 2], place[:, 3] * aspect)[:, None]  # in widths of the picture
    sides = torch.cat([side, side / aspect], 1)
    return boxes_of(
        torch.cat([place[:, :2] + answer_NK[:, :2] * sides, answer_NK[:, 2:].clamp(-4, 1.5).exp() * sides], 1)
    )


def corrections(boxes_N4: Tensor, right_N4: Tensor, aspect: float) -> Tensor:
    """What `refine` must be told of boxes to turn them into the right ones."""
    place, right = places_of(boxes_N4), places_of(right_N4)
    side = MARGIN * torch.maximum(place[:, 2], place[:, 3] * aspect)[:, None]
    sides = torch.cat([side, side / aspect], 1)
    return torch.cat([(right[:, :2] - place[:, :2]) / sides, (right[:, 2:] / sides).clamp(min=1e-3).log()], 1)


def _images(pictures_BHWC: Tensor) -> Iterator[Tensor]:
    """Some at a time, in [-1, 1]."""
    for part in pictures_BHWC.split(_AT_ONCE):
        yield part.permute(0, 3, 1, 2).float() / 127.5 - 1


def _best(names: Sequence[str], logits: Tensor) -> str:
    return names[int(logits.argmax())]


def _things(near: Near, boxes_N4: Tensor, mine: Tensor) -> tuple[SeenObject, ...]:
    """Those of one picture, the surest first; of two whose boxes nearly agree only the surer."""
    sure = near.there_N[mine].sigmoid()
    order = mine[sure.argsort(descending=True)][: int((sure >= _THERE).sum())]
    shared = overlaps(boxes_N4[order], boxes_N4[order])
    kept: list[int] = []
    for number in range(len(order)):
        if all(float(shared[number, other]) < _SAME for other in kept):
            kept.append(number)
    return tuple(_thing(near, boxes_N4, int(order[number])) for number in kept)


def _thing(near: Near, boxes_N4: Tensor, number: int) -> SeenObject:
    left, top, right, bottom = boxes_N4[number].tolist()
    red, green, blue = (round(255 * value) for value in near.rgb_NK[number].clamp(0, 1).tolist())
    logits = split_by(OBJECT_CATEGORIES, near.categories_NC[number : number + 1])
    named = {name: _best(OBJECT_CATEGORIES[name], logits[name][0]) for name in OBJECT_CATEGORIES}
    return SeenObject(
        _consistent(named),
        f"#{red:02x}{green:02x}{blue:02x}",
        ((left + right) / 2, (top + bottom) / 2),
        (left, top, right, bottom),
        float(near.there_N[number].sigmoid()),
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
