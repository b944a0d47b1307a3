import numpy as np
import pytest

from licht.core.errors import InvalidRequest
from licht.core.request import Picture
from licht.finish import Finish, apply_finish, parse_finish
from tests.support.pictures import image, pixels

GRADIENT = Picture(160, 96, image(160, 96).tobytes())
CLEAN = [Finish.PHONE, Finish.FILM]


def flat(level: int) -> Picture:
    return Picture(128, 128, bytes([level]) * (128 * 128 * 3))


def test_none_gives_the_very_same_picture() -> None:
    assert apply_finish(GRADIENT, Finish.NONE, 1) is GRADIENT


@pytest.mark.parametrize("finish", CLEAN)
def test_the_seed_decides_the_grain(finish: Finish) -> None:
    one, same, other = (apply_finish(GRADIENT, finish, seed) for seed in (1, 1, 2))
    assert one == same != other
    assert one.size == GRADIENT.size


@pytest.mark.parametrize("finish", CLEAN)
def test_it_stays_the_same_picture(finish: Finish) -> None:
    before, after = pixels(GRADIENT).astype(float), pixels(apply_finish(GRADIENT, finish, 1)).astype(float)
    assert 1 < np.abs(before - after).mean() < 14
    assert np.corrcoef(before[..., :2].ravel(), after[..., :2].ravel())[0, 1] > 0.98


@pytest.mark.parametrize("finish", CLEAN)
@pytest.mark.parametrize("level", [0, 128, 255])
def test_blacks_are_raised_whites_are_lowered_and_everything_has_grain(finish: Finish, level: int) -> None:
    after = pixels(apply_finish(flat(level), finish, 1)).astype(float)
    assert after.std() > 0.8
    if level == 0:
        assert 3 < after.mean() < 20
    if level == 255:
        assert 235 < after.mean() < 254.9


def test_grain_is_where_it_belongs() -> None:
    noise = {
        (finish, level): pixels(apply_finish(flat(level), finish, 1)).astype(float).mean(-1).std()
        for finish in CLEAN
        for level in (30, 128, 225)
    }
    assert noise[Finish.PHONE, 30] > noise[Finish.PHONE, 225] * 1.5
    assert noise[Finish.FILM, 128] > noise[Finish.FILM, 30] * 1.2
    assert noise[Finish.FILM, 128] > noise[Finish.FILM, 225] * 1.2


@pytest.mark.parametrize("finish", CLEAN)
@pytest.mark.parametrize(("width", "height"), [(64, 64), (64, 512), (130, 77)])
def test_every_size_can_be_finished(finish: Finish, width: int, height: int) -> None:
    assert apply_finish(Picture(width, height, bytes(width * height * 3)), finish, 0).size == (
        Picture(width, height, bytes(width * height * 3)).size
    )


def test_an_unknown_finish_is_refused() -> None:
    assert parse_finish("film") is Finish.FILM
    with pytest.raises(InvalidRequest, match="finish 'polaroid' is unknown; choose one of none, phone, film"):
        parse_finish("polaroid")
