import re
from typing import Any

import pytest

from licht.core.errors import InvalidRequest
from licht.core.request import (
    MAX_IMAGES,
    MAX_SEED,
    ImageRequest,
    Margins,
    Mask,
    Picture,
    Reference,
    Role,
    Start,
    parse_margins,
)
from licht.core.sizes import Size
from tests.support.pictures import picture


def test_the_limits_themselves_are_allowed() -> None:
    request = ImageRequest("", (0, MAX_SEED), size=Size(64, 512), steps=50, guidance=0.0)
    assert request.seeds == (0, MAX_SEED)
    assert ImageRequest("x", tuple(range(MAX_IMAGES)), steps=1, guidance=100.0).steps == 1


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"seeds": ()}, "num", "0 pictures asked for; ask for 1 to 64"),
        ({"seeds": tuple(range(65))}, "num", "65 pictures asked for; ask for 1 to 64"),
        ({"seeds": (-1,)}, "seed", "seed -1 is out of range; use 0 to 9223372036854775807"),
        ({"seeds": (1, 2**63)}, "seed", "seed 9223372036854775808 is out of range"),
        ({"seeds": (1.5,)}, "seed", "seed is 1.5, which is no whole number; use an int"),
        ({"seeds": (True,)}, "seed", "seed is True, which is no whole number"),
        ({"size": Size(100, 64)}, "size", "width 100 px is not a multiple of 16; use 96 or 112"),
        ({"size": Size(64, 48)}, "size", "height 48 px is too small; use at least 64 px"),
        ({"size": Size(64.0, 64)}, "size", "width is 64.0, which is no whole number"),  # type: ignore[arg-type]
        ({"steps": 0}, "steps", "0 steps asked for; use 1 to 50"),
        ({"steps": 51}, "steps", "51 steps asked for; use 1 to 50"),
        ({"steps": 4.0}, "steps", "steps is 4.0, which is no whole number"),
        ({"guidance": -0.1}, "guidance", "guidance -0.1 is out of range; use 0 to 100"),
        ({"guidance": 100.5}, "guidance", "guidance 100.5 is out of range"),
        ({"guidance": float("nan")}, "guidance", "guidance nan is out of range"),
        ({"guidance": float("inf")}, "guidance", "guidance inf is out of range"),
    ],
)
def test_what_is_out_of_range_is_refused(fields: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(message)) as caught:
        ImageRequest(**{"prompt": "x", "seeds": (1,), **fields})
    assert caught.value.field == field


def test_a_picture_has_three_bytes_a_pixel() -> None:
    assert Picture(2, 3, bytes(18)).size == Size(2, 3)
    with pytest.raises(InvalidRequest, match="a 2x3 RGB picture has 18 bytes, not 17"):
        Picture(2, 3, bytes(17))


def test_equal_pixels_have_equal_hashes() -> None:
    one = Picture(2, 3, bytes(range(18)))
    assert one.content_hash() == Picture(2, 3, bytes(range(18))).content_hash()
    assert one.content_hash() != Picture(3, 2, bytes(range(18))).content_hash()
    assert one.content_hash() != Picture(2, 3, bytes(range(1, 19))).content_hash()
    assert len(one.content_hash()) == 64


def test_pixels_are_not_printed() -> None:
    assert repr(Picture(1, 1, b"\x01\x02\x03")) == "Picture(width=1, height=1)"


def test_a_reference_has_a_role_and_a_strength() -> None:
    assert (Reference(picture()).role, Reference(picture()).strength) == (None, 1.0)
    assert [Reference(picture(), strength=value).strength for value in (0, 0.5, 4)] == [0, 0.5, 4]
    assert [role.value for role in Role] == [
        *("subject", "style", "background", "lighting"),
        *("pose", "palette", "depth", "edges"),
    ]


@pytest.mark.parametrize("strength", [-0.1, 4.1, float("nan"), float("inf"), "1", True, None])
def test_a_reference_strength_out_of_range_is_refused(strength: Any) -> None:  # noqa: ANN401
    with pytest.raises(InvalidRequest, match=r"out of range; use 0 to 4|is no number") as caught:
        Reference(picture(), strength=strength)
    assert caught.value.field == "strengths"


@pytest.mark.parametrize("strength", [0.0, -1.0, 1.01, float("nan"), "1", True, None])
def test_a_start_strength_out_of_range_is_refused(strength: Any) -> None:  # noqa: ANN401
    with pytest.raises(InvalidRequest, match=r"use more than 0 and at most 1|is no number") as caught:
        Start(picture(), strength)
    assert caught.value.field == "strength"


def test_a_mask_has_a_byte_a_pixel_and_margins_add_something() -> None:
    assert Mask(2, 3, bytes(6)).size == Size(2, 3)
    with pytest.raises(InvalidRequest, match="a 2x3 mask has 6 bytes, not 5; pass one byte a pixel"):
        Mask(2, 3, bytes(5))
    assert Margins(1, 2, 3, 4).around(Size(100, 200)) == Size(104, 206)
    for sides in ({}, {"left": -1}, {"top": 5794}, {"right": 1.5}):
        with pytest.raises(InvalidRequest, match=r"extend|no whole number") as caught:
            Margins(**sides)
        assert caught.value.field == "extend"


def test_margins_are_read_by_name() -> None:
    assert parse_margins("left=256,top=0") == Margins(left=256)
    assert parse_margins(" bottom = 16 , right=3") == Margins(right=3, bottom=16)
    for text in ("", "left", "left=", "left=-1", "left=1,left=2", "middle=3", "left=1.5", "left=9999999", "left=1,"):
        with pytest.raises(InvalidRequest, match="such as left=256,top=64"):
            parse_margins(text)
    with pytest.raises(InvalidRequest, match="extend adds nothing"):
        parse_margins("left=0")


WHITE = Mask(64, 64, b"\xff" * 64 * 64)


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"mask": WHITE}, "mask", "mask needs a picture that it changes; give start"),
        ({"extend": Margins(left=16)}, "extend", "extend needs a picture that it changes; give start"),
        ({"start": Start(picture(80, 64)), "mask": WHITE}, "mask", "the mask is 64x64 px, the picture 80x64 px"),
        ({"start": Start(picture()), "mask": Mask(64, 64, bytes(4096))}, "mask", "the mask is black all over"),
        (
            {"start": Start(picture()), "extend": Margins(top=8), "size": Size(64, 64)},
            "size",
            "with extend the picture becomes 64x72 px, not 64x64 px; leave the size out",
        ),
        ({"start": Start(picture(63, 64))}, "start", "the picture is 63x64 px; both sides need at least 64 px"),
        ({"start": Start(picture(64, 544))}, "start", "the picture is 64x544 px, longer than 8:1; crop it"),
        (
            {"start": Start(picture()), "extend": Margins(left=3000, top=3000)},
            "start",
            "the picture is 3064x3064 px, more than 4 megapixels; make it smaller first",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(message)) as caught:
        ImageRequest("x", (1,), **fields)
    assert caught.value.field == field


def test_a_picture_with_margins_says_how_large_the_result_is() -> None:
    assert ImageRequest("x", (1,)).whole_size is None
    assert ImageRequest("x", (1,), start=Start(picture(70, 65)), size=Size(128, 64)).whole_size == Size(70, 65)
    changed = ImageRequest("x", (1,), start=Start(picture(64, 64)), mask=WHITE, extend=Margins(right=7))
    assert changed.whole_size == Size(71, 64)
    black = Mask(64, 64, bytes(4096))
    assert ImageRequest("x", (1,), start=Start(picture()), mask=black, extend=Margins(right=7)).mask == black
