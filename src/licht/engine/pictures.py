"""Pixels to tensors and back: the official preparation of references, and the way out of the decoder."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from licht.core.errors import InvalidImage, LichtError
from licht.core.request import Picture, Reference
from licht.core.sizes import MAX_ASPECT, MIN_SIDE_PX, Size, floor_to_tokens
from licht.model.variants import Variant


def prepare_references(references: Sequence[Reference], variant: Variant) -> list[Picture]:
    """Each reference as the encoder gets it: capped in area, sides cut down to multiples of 16 around the centre.

    The official caps: one reference up to 2024 x 2024 px, each of several up to 1024 x 1024 px; nothing is enlarged.
    Raises `InvalidImage` for a side below 64 px or an aspect beyond 8:1.
    """
    cap_px = variant.single_reference_px if len(references) == 1 else variant.extra_reference_px
    return [prepare_reference(reference, number, cap_px) for number, reference in enumerate(references, start=1)]


def prepare_reference(reference: Reference, number: int, cap_px: int) -> Picture:
    """Cap and crop one reference; `number` counts from 1, for messages."""
    check_reference_size(reference.picture.size, f"image {number} ({reference.name})")
    image = to_image(reference.picture)
    size = capped_size(reference.picture.size, cap_px)
    if size != reference.picture.size:
        image = image.resize((size.width, size.height), Image.Resampling.LANCZOS)
    cropped = floor_to_tokens(size.width, size.height)
    if min(cropped.width, cropped.height) < 16:
        raise InvalidImage(f"image {number} ({reference.name}) becomes {cropped} px; use a squarer picture")
    left, top = (size.width - cropped.width) // 2, (size.height - cropped.height) // 2
    return from_image(image.crop((left, top, left + cropped.width, top + cropped.height)))


def check_reference_size(size: Size, name: str) -> None:
    """Raise `InvalidImage` for a picture that is too small or too elongated to be a reference."""
    if min(size.width, size.height) < MIN_SIDE_PX:
        raise InvalidImage(f"{name} is {size} px; both sides must have at least {MIN_SIDE_PX} px", field="images")
    if max(size.aspect, 1 / size.aspect) > MAX_ASPECT:
        raise InvalidImage(f"{name} is {size} px, longer than {MAX_ASPECT}:1; crop it", field="images")


def capped_size(size: Size, cap_px: int) -> Size:
    """The size after shrinking to an area of at most `cap_px`, aspect kept, sides rounded down."""
    if size.area_px <= cap_px:
        return size
    scale = math.sqrt(cap_px / size.area_px)
    return Size(int(size.width * scale), int(size.height * scale))


def cover(picture: Picture, size: Size) -> Picture:
    """Scale a picture until it just covers `size`, then cut it to `size` around the centre (Lanczos)."""
    scale = max(size.width / picture.width, size.height / picture.height)
    width, height = max(round(picture.width * scale), size.width), max(round(picture.height * scale), size.height)
    image = to_image(picture).resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - size.width) // 2, (height - size.height) // 2
    return from_image(image.crop((left, top, left + size.width, top + size.height)))


def to_tensor(picture: Picture) -> Tensor:
    """(1, 3, H, W) float32 in [-1, 1]."""
    pixels = np.frombuffer(picture.rgb, dtype=np.uint8).reshape(picture.height, picture.width, 3)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1.0


def to_picture(image_CHW: Tensor) -> Picture:
    """Quantise one decoded image, (3, H, W) about [-1, 1], to 8 bits. Raises `LichtError` if it is not finite."""
    if not torch.isfinite(image_CHW).all():
        raise LichtError("the model produced values that are not finite; try --dtype float32 or check its weights")
    pixels = (image_CHW.float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    _, height, width = pixels.shape
    return Picture(width, height, pixels.permute(1, 2, 0).contiguous().cpu().numpy().tobytes())


def to_image(picture: Picture) -> Image.Image:
    """A Pillow image of the same pixels."""
    return Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)


def from_image(image: Image.Image) -> Picture:
    """A picture of the same pixels; `image` must be RGB."""
    return Picture(image.width, image.height, image.tobytes())
