import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from licht.core.errors import InvalidRequest
from licht.core.sizes import (
    MAX_AREA_PX,
    MAX_ASPECT,
    MIN_SIDE_PX,
    PIXELS_PER_TOKEN,
    Size,
    _mismatch,
    check_size,
    floor_to_tokens,
    native_size,
    parse_size,
)


def is_valid(width: int, height: int) -> bool:
    """The limits once more, written from their description."""
    return (
        min(width, height) >= 64
        and width % 16 == height % 16 == 0
        and width * height <= 4 * 2**20
        and max(width, height) <= 8 * min(width, height)
    )


@st.composite
def valid_sizes(draw: st.DrawFn, most: int = MAX_AREA_PX) -> Size:
    """Sizes that can be drawn, of at most `most` pixels."""
    tokens = most // 256
    widest = max(width for width in range(4, tokens) if max(4, math.ceil(width / 8)) * width <= tokens)
    width = draw(st.integers(4, widest))
    return Size(16 * width, 16 * draw(st.integers(max(4, math.ceil(width / 8)), min(8 * width, tokens // width))))


@given(st.integers(0, 6000), st.integers(0, 6000))
@example(64, 512)
@example(64, 528)
@example(2048, 2048)
@example(2048, 2064)
@example(5792, 720)
def test_exactly_the_sizes_within_the_limits_can_be_drawn(width: int, height: int) -> None:
    if is_valid(width, height):
        assert check_size(Size(width, height)) == Size(width, height)
    else:
        with pytest.raises(InvalidRequest) as caught:
            check_size(Size(width, height))
        assert caught.value.field == "size"


@given(valid_sizes())
def test_every_drawable_size_is_read_as_it_is_written(size: Size) -> None:
    assert is_valid(size.width, size.height)
    assert parse_size(str(size)) == size
    assert parse_size(f"  {size.width} X {size.height} ") == size
    assert parse_size(f"{size.width}\u00d7{size.height}") == size


def parsed(text: str) -> Size | InvalidRequest:
    try:
        return parse_size(text)
    except InvalidRequest as error:
        return error


@given(st.text(max_size=30) | st.from_regex(r"\s*\d{0,5}\s*[xX]?\s*\d{0,5}\s*"))
def test_any_other_text_is_refused(text: str) -> None:
    size = parsed(text)
    if isinstance(size, InvalidRequest):
        assert size.field == "size"
        assert size.message.isprintable()
    else:
        assert is_valid(size.width, size.height)
        assert re.search("[xX\u00d7]", text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "size '' is not WIDTHxHEIGHT in pixels, such as 1024x768"),
        ("1024", "size '1024' is not WIDTHxHEIGHT"),
        ("1024x", "is not WIDTHxHEIGHT"),
        ("-64x64", "is not WIDTHxHEIGHT"),
        ("64.0x64", "is not WIDTHxHEIGHT"),
        ("9" * 5000 + "x64", "is not WIDTHxHEIGHT"),
        ("48x64", "width 48 px is too small; use at least 64 px"),
        ("64x0", "height 0 px is too small; use at least 64 px"),
        ("100x64", "width 100 px is not a multiple of 16; use 96 or 112"),
        ("64x65", "height 65 px is not a multiple of 16; use 64 or 80"),
        ("4096x4096", "size 4096x4096 has 16.00 megapixels; at most 4 (such as 2048x2048) can be drawn"),
        ("64x999999", "height 999999 px is too large; use at most 5792 px"),
        ("64x528", "size 64x528 is longer than 8:1; choose a squarer one"),
    ],
)
def test_messages_say_what_to_do(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(message)):
        parse_size(text)


@given(valid_sizes(), st.lists(valid_sizes(), max_size=4))
@example(Size(64, 512), [Size(64, 64)])  # nothing of this ratio fits into so few pixels
@example(Size(64, 512), [Size(128, 128)])
@example(Size(512, 64), [Size(128, 128)])
def test_what_is_drawn_natively_can_be_drawn_and_is_close(asked: Size, trained: list[Size]) -> None:
    native = native_size(asked, trained)
    alike = [size for size in trained if math.isclose(size.aspect, asked.aspect, rel_tol=0.02)]
    limit_px = max((size.area_px for size in alike or trained), default=asked.area_px)
    if asked.area_px <= limit_px:
        assert native == asked
        return
    assert is_valid(native.width, native.height)
    assert native.area_px <= limit_px
    # no side may be below 64 px, so that few pixels cannot make an elongated picture
    wanted, longest = abs(math.log(asked.aspect)), math.log(limit_px / MIN_SIDE_PX**2)
    assert abs(math.log(native.aspect / asked.aspect)) <= max(wanted - longest, 0) + 0.25
    assert not math.log(native.aspect) * math.log(asked.aspect) < -0.1


@given(valid_sizes(), valid_sizes(most=320 * 320))
def test_no_other_size_is_closer(asked: Size, trained: Size) -> None:
    limit_px = trained.area_px
    native = native_size(asked, [trained])
    if asked.area_px <= limit_px or math.isclose(trained.aspect, asked.aspect, rel_tol=0.02):
        assert native in (asked, trained)
        return
    sides = range(MIN_SIDE_PX, limit_px // MIN_SIDE_PX + 1, PIXELS_PER_TOKEN)
    every = [Size(width, height) for width in sides for height in sides if width * height <= limit_px]
    best = min(_mismatch(size, asked, limit_px) for size in every)
    assert _mismatch(native, asked, limit_px) == pytest.approx(best, abs=1e-9)


def test_the_largest_trained_size_of_the_ratio_is_preferred() -> None:
    trained = [Size(128, 128), Size(192, 96), Size(256, 128), Size(96, 192)]
    assert native_size(Size(1024, 512), trained) == Size(256, 128)
    assert native_size(Size(512, 1024), trained) == Size(96, 192)
    assert native_size(Size(1024, 1024), trained) == Size(128, 128)
    assert native_size(Size(160, 160), trained) == Size(128, 128), "larger than any square it has seen"


@pytest.mark.parametrize(
    ("asked", "drawn"),
    [
        (Size(256, 256), Size(128, 128)),
        (Size(256, 128), Size(160, 80)),
        (Size(64, 512), Size(64, 256)),
        (Size(512, 64), Size(256, 64)),
        (Size(1024, 768), Size(144, 112)),
        (Size(144, 112), Size(144, 112)),
    ],
)
def test_known_sizes_of_a_model_trained_at_128(asked: Size, drawn: Size) -> None:
    assert native_size(asked, [Size(128, 128)]) == drawn


def test_grids_and_floors() -> None:
    assert Size(80, 112).grid == (7, 5)
    assert Size(80, 112).tokens == 35
    assert Size(80, 112).area_px == 8960
    assert floor_to_tokens(95, 130) == Size(80, 128)
    assert Size(512, 64).aspect == MAX_ASPECT
