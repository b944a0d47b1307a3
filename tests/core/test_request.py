import re
from typing import Any

import pytest

from licht.core.errors import InvalidRequest
from licht.core.request import MAX_IMAGES, MAX_SEED, ImageRequest, Picture
from licht.core.sizes import Size


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
