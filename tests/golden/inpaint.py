"""Masked denoising against the reference's pipeline for it, each from a prompt and a seed to final latents and pixels."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.flux2.pipeline_flux2_klein_inpaint import Flux2KleinInpaintPipeline
from PIL import Image
from torch import Tensor

from licht.checkpoint.folder import ModelFiles
from licht.core.request import ImageRequest, ImageResult, Mask, Picture, Reference, Start
from licht.core.sizes import Size
from licht.engine import stages
from licht.engine.engine import Choice, Engine, Events
from licht.engine.pictures import to_image
from licht.engine.settle import Settled
from licht.evaluation.measured import (
    ONE_LEVEL,
    TOLERANCES,
    Measured,
    largest_pixel_difference,
    relative_error,
    sample_picture,
)


@dataclass(frozen=True, slots=True)
class Change:
    """A picture of `size`, what of it may change (left, top, right, bottom in tokens), and how much."""

    name: str
    size: Size
    box: tuple[int, int, int, int]
    strength: float
    reference: Size | None = None
    steps: int = 4
    seed: int = 5

    @property
    def mask(self) -> Mask:
        """White in the box: whole tokens, for which the mask of the reference is the same as ours."""
        gray = np.zeros((self.size.height, self.size.width), np.uint8)
        left, top, right, bottom = (16 * edge for edge in self.box)
        gray[top:bottom, left:right] = 255
        return Mask(self.size.width, self.size.height, gray.tobytes())


CHANGES = (
    Change("masked, from noise", Size(128, 96), (2, 1, 6, 5), 1.0),
    Change("masked, half way", Size(96, 128), (0, 0, 3, 8), 0.5, steps=6),
    Change("masked, eighty percent", Size(80, 80), (1, 1, 4, 3), 0.8, steps=5),
    Change("masked, one reference", Size(112, 80), (3, 0, 7, 5), 1.0, Size(80, 64)),
)


class Watched(Engine):
    """Keeps the final latents and the whole decoded picture, which is more than what comes back under the mask."""

    latents_1LC: Tensor
    decoded: Picture

    def _decode(
        self, settled: Settled, drawn: tuple[Tensor, int, int], warnings: tuple[str, ...], banded: bool
    ) -> Events:
        self.latents_1LC = drawn[0]
        self.decoded = stages.decode(self.autoencoder, drawn[0], settled.native.grid)
        yield from super()._decode(settled, drawn, warnings, banded)


def compare_changes(files: ModelFiles) -> Iterator[Measured]:
    """Final latents, and the pixels of the whole picture, change by change, in float32 on the processor."""
    ours = Watched(files, Choice("cpu", "float32"))
    folder, variant = files.parts.transformer.parent, files.variant
    theirs: Any = Flux2KleinInpaintPipeline.from_pretrained(folder, dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    allowed = TOLERANCES[torch.float32]
    for change in CHANGES:
        picture = sample_picture(change.size, change.seed)
        other = None if change.reference is None else sample_picture(change.reference, change.seed + 1)
        latents, image = _theirs(theirs, files, change, picture, other)
        # the reference puts the picture itself before other references; alone, it comes by itself
        references = () if other is None else (Reference(picture), Reference(other))
        request = ImageRequest(
            PROMPT, (change.seed,), references, steps=change.steps, start=Start(picture, change.strength)
        )
        (result,) = (e for e in ours.run(replace(request, mask=change.mask)) if isinstance(e, ImageResult))
        del result
        error = relative_error(ours.latents_1LC, latents)
        yield Measured(variant.name, change.name, "final latents of a change", error, allowed.drawing)
        pixels = largest_pixel_difference(ours.decoded, Picture(image.width, image.height, image.tobytes()))
        yield Measured(variant.name, change.name, "pixels of a change", pixels, ONE_LEVEL)


PROMPT = "make the cube red"


def _theirs(
    pipeline: Any,  # noqa: ANN401 - the library's class is not typed
    files: ModelFiles,
    change: Change,
    picture: Picture,
    other: Picture | None,
) -> tuple[Tensor, Image.Image]:
    last: list[Tensor] = []

    def remember(_pipeline: object, _step: int, _time: object, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        last[:] = [tensors["latents"]]
        return tensors

    mask = change.mask
    (image,) = pipeline(
        prompt=PROMPT,
        image=to_image(picture),
        image_reference=None if other is None else to_image(other),
        mask_image=Image.frombytes("L", (mask.width, mask.height), mask.gray),
        strength=change.strength,
        num_inference_steps=change.steps,
        guidance_scale=files.variant.default_guidance or 1.0,
        generator=torch.Generator().manual_seed(change.seed),
        max_sequence_length=files.variant.text.length,
        text_encoder_out_layers=files.variant.text.layers,
        callback_on_step_end=remember,
    ).images
    return last[0], image
