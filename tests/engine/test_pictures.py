import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from licht.core.errors import InvalidImage, LichtError
from licht.core.request import Picture, Reference
from licht.core.sizes import Size
from licht.engine.pictures import (
    capped_size,
    check_reference_size,
    cover,
    prepare_reference,
    prepare_references,
    to_image,
    to_picture,
    to_tensor,
)
from licht.model.variants import VARIANTS
from tests.support.pictures import image, picture, pixels, reference

ONE, SEVERAL = 2024 * 2024, 1024 * 1024


@pytest.mark.parametrize(
    ("size", "cap_px", "capped"),
    [
        (Size(2024, 2024), ONE, Size(2024, 2024)),
        (Size(3000, 2000), ONE, Size(2478, 1652)),
        (Size(2000, 3000), ONE, Size(1652, 2478)),
        (Size(1024, 1024), SEVERAL, Size(1024, 1024)),
        (Size(1025, 1025), SEVERAL, Size(1024, 1024)),
        (Size(1500, 1500), SEVERAL, Size(1024, 1024)),
        (Size(8000, 1000), SEVERAL, Size(2896, 362)),
        (Size(64, 64), SEVERAL, Size(64, 64)),
    ],
)
def test_only_the_area_is_capped_and_sides_are_rounded_down(size: Size, cap_px: int, capped: Size) -> None:
    assert capped_size(size, cap_px) == capped


@given(st.integers(64, 10_000), st.integers(64, 10_000))
def test_a_capped_size_keeps_area_and_ratio(width: int, height: int) -> None:
    capped = capped_size(Size(width, height), SEVERAL)
    assert capped.area_px <= SEVERAL
    assert capped.width <= width
    assert capped.height <= height
    assert abs(capped.width * height - capped.height * width) <= max(width, height)


def test_small_pictures_are_cropped_around_their_centre() -> None:
    given = picture(83, 70)
    prepared = prepare_reference(Reference(given), 1, SEVERAL)
    assert prepared.size == Size(80, 64)
    assert np.array_equal(pixels(prepared), pixels(given)[3:67, 1:81])


def test_large_pictures_are_scaled_then_cropped() -> None:
    large = image(1500, 1100)
    prepared = prepare_reference(Reference(Picture(1500, 1100, large.tobytes())), 1, SEVERAL)
    scaled = large.resize((1195, 876), Image.Resampling.LANCZOS)
    assert prepared.size == Size(1184, 864)
    assert prepared.rgb == scaled.crop((5, 6, 1189, 870)).tobytes()


def test_one_reference_may_be_larger_than_each_of_several() -> None:
    large, variant = reference(1500, 1100), VARIANTS["klein-4b"]
    assert [made.size for made in prepare_references([large], variant)] == [Size(1488, 1088)]
    assert [made.size for made in prepare_references([large, reference()], variant)] == [Size(1184, 864), Size(64, 64)]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (Size(63, 500), "image 3 is 63x500 px; both sides must have at least 64 px"),
        (Size(500, 1), "image 3 is 500x1 px; both sides must have at least 64 px"),
        (Size(64, 513), "image 3 is 64x513 px, longer than 8:1; crop it"),
        (Size(8001, 1000), "image 3 is 8001x1000 px, longer than 8:1; crop it"),
    ],
)
def test_unfit_references_are_refused(size: Size, message: str) -> None:
    with pytest.raises(InvalidImage, match=re.escape(message)) as caught:
        check_reference_size(size, "image 3")
    assert caught.value.field == "images"


def test_the_limits_themselves_are_allowed() -> None:
    for size in (Size(64, 64), Size(64, 512), Size(512, 64)):
        check_reference_size(size, "image 1")


def test_pixels_become_numbers_and_come_back() -> None:
    given = picture(48, 32)
    tensor = to_tensor(given)
    assert tensor.shape == (1, 3, 32, 48)
    assert (float(tensor.min()), float(tensor.max())) == (-1.0, 1.0)
    assert tensor[0, 1, 2, 3] == pytest.approx(pixels(given)[2, 3, 1] / 127.5 - 1)
    assert to_picture(tensor[0]) == given
    assert to_image(given).getpixel((3, 2)) == tuple(pixels(given)[2, 3])


def test_values_beyond_the_range_are_clipped() -> None:
    made = to_picture(torch.tensor([-7.0, -1.0, -0.5, 0.0, 1.0, 9.0]).expand(3, 1, 6))
    assert pixels(made)[0, :, 0].tolist() == [0, 0, 64, 128, 255, 255]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_an_error(value: float) -> None:
    broken = torch.zeros(3, 4, 4)
    broken[1, 2, 3] = value
    with pytest.raises(LichtError, match="values that are not finite; try --dtype float32 or check its weights"):
        to_picture(broken)


@settings(max_examples=30)
@given(st.integers(4, 20), st.integers(4, 20), st.integers(4, 40), st.integers(4, 40))
def test_enlarging_gives_exactly_the_size(width: int, height: int, to_width: int, to_height: int) -> None:
    size = Size(16 * to_width, 16 * to_height)
    assert cover(picture(16 * width, 16 * height), size).size == size


def test_enlarging_keeps_the_centre_and_the_ratio() -> None:
    small = Picture(64, 64, image(64, 64).tobytes())
    doubled = pixels(cover(small, Size(128, 128))).astype(int)
    assert np.abs(doubled[::2, ::2] - pixels(small)).max() <= 8
    wide = pixels(cover(small, Size(128, 64))).astype(int)
    assert np.abs(wide - doubled[32:96]).max() <= 1
