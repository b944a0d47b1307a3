import random
from importlib.resources import files

import numpy as np
import pytest

from licht.world import vocabulary as v
from licht.world.lettering import board_size, board_texture, overlay_mask, text_mask, text_size
from licht.world.scene import Lettering
from licht.world.words import WORDS, sample_word, word_split


def test_words_are_short_capitals_and_each_once() -> None:
    assert len(WORDS) > 600
    assert len(set(WORDS)) == len(WORDS)
    assert all(word.isalpha() and word.isupper() and len(word) <= 8 for word in WORDS)


def test_about_a_tenth_of_the_words_is_for_testing_and_none_is_drawn_for_training() -> None:
    share = sum(word_split(word) == "test" for word in WORDS) / len(WORDS)
    assert 0.06 < share < 0.14
    rng = random.Random(0)
    train = {sample_word(rng, "train") for _ in range(2000)}
    test = {sample_word(rng, "test") for _ in range(500)}
    assert not train & test
    assert all(word_split(word) == "train" for word in train)
    assert {len(word) for word in train} == set(range(1, 9))


def test_invented_words_leave_out_unwanted_pieces() -> None:
    from licht.world.words import _clean

    assert not _clean("XASSY")
    assert _clean("LICHT")


@pytest.mark.parametrize("font", v.FONTS)
def test_fonts_are_small_and_hold_all_capitals_and_digits(font: v.FontName) -> None:
    masks = [text_mask((letter,), font, 24) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"]
    assert all(mask.max() > 250 for mask in masks)
    padded = {mask.shape: [] for mask in masks}  # type: ignore[var-annotated] # lists of arrays
    for mask in masks:
        assert not any(np.array_equal(mask, other) for other in padded[mask.shape])
        padded[mask.shape].append(mask)


def test_fonts_come_with_their_licence() -> None:
    folder = files("licht.world").joinpath("fonts")
    text = folder.joinpath("OFL.txt").read_text(encoding="utf-8")
    assert "SIL OPEN FONT LICENSE Version 1.1" in text
    fonts = [each for each in folder.iterdir() if each.name.endswith((".ttf", ".otf"))]
    assert len(fonts) == len(v.FONTS)
    assert all(len(each.read_bytes()) < 40_000 and each.name in text for each in fonts)


def test_masks_are_as_tall_as_asked() -> None:
    rows = np.flatnonzero(text_mask(("HH",), "sans", 32).max(1) > 127)
    assert rows[-1] - rows[0] + 1 == pytest.approx(32, abs=1)
    two = text_mask(("HH", "HH"), "sans", 32).max(1) > 127
    assert two.sum() == pytest.approx(64, abs=2)


def test_a_board_holds_its_text() -> None:
    text = Lettering(("SUN", "FLOWER"), "serif", "small", "black", "sign", "white")
    width, height = board_size(text)
    inner, _ = text_size(text.lines, text.font)
    assert width / height > 1
    texture = board_texture(text.lines, text.font, 20)
    assert texture.shape[1] / texture.shape[0] == pytest.approx(width / height, rel=0.05)
    assert inner > 0
    edge = np.concatenate([texture[0], texture[-1], texture[:, 0], texture[:, -1]])
    assert edge.max() == 0


@pytest.mark.parametrize(("place", "half"), [("top", 0), ("bottom", 1)])
def test_text_over_the_scene_is_where_it_belongs(place: v.TextPlace, half: int) -> None:
    mask = overlay_mask(Lettering(("SUN",), place=place), 128, 96)
    halves = mask[:48].sum(dtype=np.int64), mask[48:].sum(dtype=np.int64)
    assert halves[half] > 0
    assert halves[1 - half] == 0
    columns = np.flatnonzero(mask.max(0))
    assert columns[0] + columns[-1] == pytest.approx(127, abs=3)
