"""Whole drawings: the pipeline of the reference against `licht.load`, each from a prompt and a seed to pixels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

import licht
from licht.checkpoint.folder import ModelFiles
from licht.core.request import Picture
from licht.core.sizes import Size
from licht.engine.pictures import to_image
from licht.evaluation.measured import ONE_LEVEL, Measured, largest_pixel_difference, sample_picture
from licht.model.variants import Kind
from tests.golden.models import Pipeline


@dataclass(frozen=True, slots=True)
class Drawing:
    """What a person asks for. Without a size the first reference gives it."""

    name: str
    prompt: str
    seed: int
    size: Size | None
    references: tuple[Size, ...] = ()
    steps: int = 4

    def pictures(self) -> list[Image.Image]:
        """The references, made up."""
        return [to_image(sample_picture(size, self.seed + number)) for number, size in enumerate(self.references)]


DRAWINGS = (
    Drawing("text to image, 80x112", "a small matte blue cube", 5, Size(80, 112)),
    Drawing("one reference, its size", "make the cube red", 6, None, (Size(131, 90),)),
    Drawing(
        "three references, 128x64", "put them together", 7, Size(128, 64), (Size(96, 64), Size(67, 70), Size(64, 96))
    ),
)
TRAINED_DRAWINGS = (
    Drawing("128x128", "a large shiny red sphere on a gray floor, light from the left", 1, Size(128, 128)),
    Drawing(
        "160x96, two things",
        "a small matte blue cube to the right of a large shiny green cone on a teal floor, light from the right",
        2,
        Size(160, 96),
        steps=8,
    ),
    Drawing("64x64", 'a large matte pink cylinder on a beige floor, with the word "SUN" on top', 3, Size(64, 64)),
    Drawing("128x128, unknown words", "Vögel über dem Fluß {und} 一只猫", 4, Size(128, 128)),
)
"""For models that Licht has trained, without references."""
REFERENCE_DRAWINGS = (
    Drawing("one reference, its size", "make the sphere cyan", 5, None, (Size(128, 128),)),
    Drawing("another size", "the same on a lilac floor", 6, Size(96, 160), (Size(100, 75),)),
    Drawing(
        "three references", "all of them together", 7, Size(128, 128), (Size(128, 128), Size(64, 64), Size(160, 96))
    ),
)
"""For those that cache references."""


def compare_drawings(files: ModelFiles, pipeline: type[Pipeline], drawings: Sequence[Drawing]) -> Iterator[Measured]:
    """The largest difference of any pixel, drawing by drawing, in float32 on the processor."""
    folder = files.parts.transformer.parent
    model = licht.load(folder, device="cpu", dtype="float32")
    theirs: Any = pipeline.from_pretrained(folder, dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    text, variant = files.variant.text, files.variant
    for drawing in drawings:
        width, height = (drawing.size.width, drawing.size.height) if drawing.size else (None, None)
        (result,) = model.generate(
            drawing.prompt,
            images=drawing.pictures(),
            size=None if drawing.size is None else str(drawing.size),
            seed=drawing.seed,
            steps=drawing.steps,
        )
        (image,) = theirs(
            prompt=drawing.prompt,
            image=drawing.pictures() or None,
            width=width,
            height=height,
            num_inference_steps=drawing.steps,
            generator=torch.Generator().manual_seed(drawing.seed),
            max_sequence_length=text.length,
            text_encoder_out_layers=text.layers,
            **({} if variant.kind is Kind.KV else {"guidance_scale": variant.default_guidance or 1.0}),
        ).images
        drawn = result.drawn.picture
        error = largest_pixel_difference(drawn, Picture(image.width, image.height, image.tobytes()))
        yield Measured(variant.name, drawing.name, "pixels of a whole drawing", error, ONE_LEVEL)
