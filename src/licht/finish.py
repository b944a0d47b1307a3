"""A natural finish: the grain, softness and tone of an ordinary snapshot, for pictures that look too clean.

Seeded: the same picture, finish and seed give the same pixels. It is put on before the picture is marked, so that the
mark survives it. Legend: H height, W width, C channels; values are 0 to 1.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from licht.core.errors import InvalidRequest
from licht.core.request import Picture

Pixels = NDArray[np.floating[Any]]

_LUMA: Final = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
"""Rec. 709."""


class Finish(StrEnum):
    """Whose snapshot the picture looks like."""

    NONE = "none"
    PHONE = "phone"
    """A telephone's: slightly soft and sharpened again, flat tones, fine noise that is strongest in the shadows."""
    FILM = "film"
    """Small film's: soft, glowing lights, raised blacks, grain that is strongest in the middle tones."""


def parse_finish(name: str) -> Finish:
    """The finish called `name`. Raises `InvalidRequest` if there is none."""
    try:
        return Finish(name)
    except ValueError:
        choices = ", ".join(Finish)
        raise InvalidRequest(f"finish {name!r} is unknown; choose one of {choices}", field="finish") from None


def apply_finish(picture: Picture, finish: Finish, seed: int) -> Picture:
    """`picture` with its finish; `Finish.NONE` gives the very same picture back."""
    if finish is Finish.NONE:
        return picture
    pixels_HWC = np.frombuffer(picture.rgb, dtype=np.uint8).reshape(picture.height, picture.width, 3)
    # the name is part of the seed, so that two finishes of one picture do not share their noise
    random = np.random.default_rng([seed, *finish.value.encode()])
    finished_HWC = _FINISHES[finish](pixels_HWC.astype(np.float32) / 255, random)
    rgb = np.rint(finished_HWC.clip(0, 1) * 255).astype(np.uint8)
    return Picture(picture.width, picture.height, rgb.tobytes())


def _phone(pixels_HWC: Pixels, random: np.random.Generator) -> Pixels:
    unit_px = _unit_px(pixels_HWC)
    soft_HWC = _blurred(pixels_HWC, 0.7 * unit_px)
    sharpened_HWC = soft_HWC + 0.6 * (soft_HWC - _blurred(soft_HWC, 1.6 * unit_px))
    flat_HWC = _toned(sharpened_HWC, black=0.025, white=0.97, saturation=0.92)
    luma_HW1 = (flat_HWC @ _LUMA)[..., None]
    fine_HW1 = _noise(random, flat_HWC.shape[:2], 0.45 * unit_px)
    blotches_HWC = np.stack([_noise(random, flat_HWC.shape[:2], 2.2 * unit_px)[..., 0] for _ in range(3)], axis=-1)
    shadows_HW1 = 1.15 - luma_HW1.clip(0, 1)
    finished_HWC: Pixels = flat_HWC + shadows_HW1 * (0.020 * fine_HW1 + 0.012 * blotches_HWC)
    return finished_HWC


def _film(pixels_HWC: Pixels, random: np.random.Generator) -> Pixels:
    unit_px = _unit_px(pixels_HWC)
    soft_HWC = _blurred(pixels_HWC, 0.9 * unit_px)
    # light that passes the layers is thrown back from the base, and reddens what surrounds bright places
    lights_HW1 = ((soft_HWC @ _LUMA)[..., None] - 0.75).clip(0, None)
    glow_HWC = _blurred(np.repeat(lights_HW1, 3, axis=-1), 6 * unit_px)
    lit_HWC = soft_HWC + glow_HWC * np.array([0.9, 0.35, 0.15], dtype=np.float32)
    toned_HWC = _toned(lit_HWC, black=0.045, white=0.96, saturation=0.9)
    luma_HW1 = (toned_HWC @ _LUMA)[..., None].clip(0, 1)
    cool, warm = (np.array(tint, dtype=np.float32) for tint in ([-0.012, 0.004, 0.016], [0.018, 0.006, -0.014]))
    split_HWC = toned_HWC + (1 - luma_HW1) * cool + luma_HW1 * warm
    grain_HW1 = _noise(random, split_HWC.shape[:2], 0.7 * unit_px)
    finished_HWC: Pixels = split_HWC + grain_HW1 * (0.006 + 0.075 * luma_HW1 * (1 - luma_HW1))
    return finished_HWC


_FINISHES: Final[Mapping[Finish, Callable[[Pixels, np.random.Generator], Pixels]]] = MappingProxyType(
    {Finish.PHONE: _phone, Finish.FILM: _film}
)


def _unit_px(pixels_HWC: Pixels) -> float:
    """The width of a detail: one pixel of a picture of a megapixel, less for smaller ones, but not much."""
    height, width = pixels_HWC.shape[:2]
    return max(0.6, float(np.sqrt(height * width) / 1024))


def _toned(pixels_HWC: Pixels, black: float, white: float, saturation: float) -> Pixels:
    """Tones between `black` and `white`, colours moved towards gray."""
    luma_HW1 = (pixels_HWC @ _LUMA)[..., None]
    toned_HWC: Pixels = black + (white - black) * (luma_HW1 + saturation * (pixels_HWC - luma_HW1))
    return toned_HWC


def _blurred(pixels_HWC: Pixels, radius_px: float) -> Pixels:
    """A Gaussian blur of standard deviation `radius_px`; edges are mirrored."""
    pad = min(int(np.ceil(4 * radius_px)), *(side - 1 for side in pixels_HWC.shape[:2]))
    padded_HWC = np.pad(pixels_HWC, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    height, width = padded_HWC.shape[:2]
    spectrum = np.fft.rfft2(padded_HWC, axes=(0, 1)) * _falloff(height, width, radius_px)[..., None]
    blurred_HWC: Pixels = np.fft.irfft2(spectrum, s=(height, width), axes=(0, 1)).astype(np.float32)
    return blurred_HWC[pad : height - pad, pad : width - pad]


def _noise(random: np.random.Generator, shape: tuple[int, int], radius_px: float) -> Pixels:
    """Noise (H, W, 1) of unit variance whose grains are about `radius_px` wide."""
    height, width = shape
    spectrum = np.fft.rfft2(random.standard_normal(shape)) * _falloff(height, width, radius_px)
    grains: Pixels = np.fft.irfft2(spectrum, s=shape).astype(np.float32)
    unit: Pixels = grains / grains.std()
    return unit[..., None]


def _falloff(height: int, width: int, radius_px: float) -> NDArray[np.float64]:
    """The Fourier transform of a Gaussian, for the spectrum of `rfft2`."""
    frequencies_y, frequencies_x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    falloff: NDArray[np.float64] = np.exp(-2 * (np.pi * radius_px) ** 2 * (frequencies_y**2 + frequencies_x**2))
    return falloff
