"""Drawing for a suite: through the same door as everybody, but what is judged is the picture before it is marked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from licht.core.request import ImageRequest, Picture, Reference
from licht.core.sizes import Size
from licht.generate import Model, Result


@dataclass(frozen=True, slots=True)
class Settings:
    """How to draw; None takes the model's own default. `guidance` is left out for models that take none."""

    steps: int | None = None
    guidance: float | None = None


class Drawer:
    """Draws one picture of 128x128 px at a time."""

    def __init__(self, model: Model, settings: Settings, size: Size = Size(128, 128)) -> None:
        """Draw with `model`, at its own size if it was not trained for `size`."""
        self.model, self.settings, self.size = model, settings, size

    def draw(self, prompt: str, seed: int, references: Sequence[Tensor] = ()) -> Tensor:
        """uint8 (H, W, 3). `references` are uint8 pictures (H, W, 3), the first is image 1."""
        guided = self.model.engine.variant.takes_guidance
        request = ImageRequest(
            prompt=prompt,
            seeds=(seed,),
            references=tuple(
                Reference(to_picture(picture), f"image {number}") for number, picture in enumerate(references, start=1)
            ),
            size=self.size,
            steps=self.settings.steps,
            guidance=self.settings.guidance if guided else None,
        )
        return next(to_tensor(event.drawn.picture) for event in self.model.stream(request) if isinstance(event, Result))


def to_picture(picture_HWC: Tensor) -> Picture:
    """uint8 (H, W, 3) -> the engine's picture."""
    height, width, _ = picture_HWC.shape
    return Picture(width, height, picture_HWC.contiguous().numpy().tobytes())


def to_tensor(picture: Picture) -> Tensor:
    """The engine's picture -> uint8 (H, W, 3)."""
    pixels = np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3)
    return torch.from_numpy(pixels.copy())
