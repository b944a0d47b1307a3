import pytest
from hypothesis import given
from hypothesis import strategies as st

from licht.core.aspects import MAX_MEGAPIXELS, MEGAPIXEL_PX, MIN_MEGAPIXELS, check_megapixels, parse_aspect, size_from
from licht.core.errors import InvalidRequest
from licht.core.sizes import Size, check_size


@pytest.mark.parametrize(
    ("aspect", "megapixels", "size"),
    [
        ("square", 1, "1024x1024"),
        ("1:1", 4, "2048x2048"),
        ("16:9", 1, "1360x768"),
        ("wide", 2, "1936x1088"),
        ("portrait", 1, "880x1184"),
        ("9:16", 1, "768x1360"),
        ("8:1", 0.5, "2048x256"),
        ("square", 0.004, "64x64"),
    ],
)
def test_a_ratio_and_an_area_make_a_size(aspect: str, megapixels: float, size: str) -> None:
    assert str(size_from(parse_aspect(aspect), megapixels * MEGAPIXEL_PX)) == size


def test_a_trained_size_of_that_ratio_is_preferred() -> None:
    assert size_from(1.0, 1000 * 1024) == Size(1008, 1008)
    assert size_from(1.0, 1000 * 1024, (Size(512, 512), Size(1024, 1024))) == Size(1024, 1024)


@given(st.floats(1 / 8, 8), st.floats(MIN_MEGAPIXELS, MAX_MEGAPIXELS))
def test_every_ratio_and_area_is_drawable_or_refused(aspect: float, megapixels: float) -> None:
    area = check_megapixels(megapixels) * MEGAPIXEL_PX
    try:
        size = size_from(aspect, area)
    except InvalidRequest:
        assert megapixels > 3.5
        return
    assert check_size(size) == size
    if megapixels > 0.1 and 1 / 4 < aspect < 4 and megapixels < 3.9:
        assert abs(size.area_px / area - 1) < 0.12
        assert abs(size.aspect / aspect - 1) < 0.06


@pytest.mark.parametrize("aspect", ["", "huge", "0:1", "1:0", "3", "9:1", "1:9", "-1:2", "16x9"])
def test_an_unknown_ratio_is_refused(aspect: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_aspect(aspect)
    assert caught.value.field == "aspect"


@pytest.mark.parametrize("megapixels", [0, -1, 0.003, 4.01, float("nan"), float("inf")])
def test_too_many_or_too_few_pixels_are_refused(megapixels: float) -> None:
    with pytest.raises(InvalidRequest, match="out of range"):
        check_megapixels(megapixels)
