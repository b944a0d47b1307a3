import random
import zlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from licht.core.errors import InvalidPrompt, InvalidRequest
from licht.core.recipe import MAX_TEXT_BYTES, Recipe, UsedLora, UsedPicture
from licht.core.request import Role

FULL = Recipe(
    version="0.1.0",
    model="nano",
    weights="sha256:" + "0" * 64,
    dtype="float32",
    quant="fp8",
    device="cpu",
    seed=7,
    width=128,
    height=64,
    steps=4,
    guidance=3.5,
    finish="film",
    references=(UsedPicture(sha256="a" * 64, role=Role.STYLE, strength=1.5), UsedPicture(sha256="b" * 64)),
    start=UsedPicture(sha256="c" * 64, strength=0.5),
    mask="d" * 64,
    extend=(1, 2, 3, 4),
    loras=(UsedLora(weights="sha256:" + "1" * 64, strength=-0.5, allow_partial=True),),
    prompt='a "cat" & <b>\n',
)


def test_a_recipe_is_read_as_it_was_written() -> None:
    assert Recipe.from_text(FULL.to_text()) == FULL
    assert FULL.to_text().isascii()
    assert FULL.to_text().isprintable()


@given(st.text(max_size=3000))
def test_any_prompt_is_kept_as_it_is(prompt: str) -> None:
    kept = FULL.model_copy(update={"prompt": prompt.encode("utf-8", "replace").decode()})
    assert Recipe.from_text(kept.to_text()) == kept


def test_a_long_prompt_is_packed_and_one_that_fits_nowhere_is_refused() -> None:
    long = FULL.model_copy(update={"prompt": "a red sphere beside a blue cube. " * 900})
    assert long.to_text().startswith("zlib:")
    assert len(long.to_text()) < 2000
    assert Recipe.from_text(long.to_text()) == long
    noise = "".join(chr(value) for value in random.Random(0).choices(range(0x4E00, 0x9000), k=32_000))
    with pytest.raises(InvalidPrompt, match="too long to be kept"):
        FULL.model_copy(update={"prompt": noise}).to_text()
    assert MAX_TEXT_BYTES < 65_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "zlib:!!!",
        "zlib:" + b64encode(b"no").decode(),
        "zlib:" + b64encode(zlib.compress(b" " * 10**7)).decode(),
        FULL.to_text().replace('"seed":7', '"seed":-7'),
        FULL.to_text().replace("d" * 64, "d"),
        "{" * 100_000,
    ],
)
def test_a_broken_recipe_is_one_line(text: str) -> None:
    with pytest.raises(InvalidRequest, match="not in a way that can be read"):
        Recipe.from_text(text)


def test_what_a_later_version_adds_is_passed_over() -> None:
    assert Recipe.from_text(FULL.to_text()[:-1] + ',"later":1}') == FULL
