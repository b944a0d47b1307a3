"""A picture to begin with, masks and margins: what may change changes, and nothing else."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from licht.core.errors import InvalidRequest
from licht.core.request import ImageRequest, ImageResult, Margins, Mask, Picture, Reference, Start
from licht.core.sizes import Size
from licht.engine.engine import Choice, Engine
from licht.engine.pictures import from_image
from licht.engine.settle import settle
from licht.engine.stages import Place, decode, encode_reference
from licht.engine.start import FEATHER_PX, Canvas, canvas_of
from licht.model.variants import VARIANTS, Kind
from licht.sampling.noise import grid_to_tokens
from tests.support.pictures import picture, pixels, reference

Engines = Mapping[Kind, Engine]
CPU = Choice("cpu", "float32")
VARIANT = VARIANTS["klein-4b"]
SMALL = replace(VARIANT, trained_sizes=(Size(128, 128),))
Gray = npt.NDArray[np.uint8]


def smooth(width: int, height: int) -> Picture:
    """A gradient, which survives scaling."""
    x, y = np.meshgrid(np.linspace(20, 220, width), np.linspace(20, 220, height))
    return from_image(Image.fromarray(np.stack([x, y, (x + y) / 2], -1).astype(np.uint8)))


def box(size: Size, left: int, top: int, right: int, bottom: int, value: int = 255) -> Mask:
    gray = np.zeros((size.height, size.width), np.uint8)
    gray[top:bottom, left:right] = value
    return Mask(size.width, size.height, gray.tobytes())


def asked(start: Picture, strength: float = 1.0, **fields: Any) -> ImageRequest:  # noqa: ANN401
    return ImageRequest("a cat", (1,), start=Start(start, strength), **fields)


def made(request: ImageRequest, variant: Any = VARIANT) -> Canvas:  # noqa: ANN401
    canvas = canvas_of(request, variant)
    assert canvas is not None
    return canvas


def alpha_of(canvas: Canvas) -> Gray:
    assert canvas.alpha_HW is not None
    return canvas.alpha_HW


def tokens_of(canvas: Canvas) -> list[float]:
    assert canvas.mask_1L1 is not None
    found: list[float] = canvas.mask_1L1.flatten().tolist()
    return found


def test_without_a_start_there_is_no_canvas() -> None:
    assert canvas_of(ImageRequest("a cat", (1,)), VARIANT) is None


def test_a_start_of_whole_tokens_is_its_own_canvas() -> None:
    canvas = made(asked(picture(96, 64), 0.5))
    assert (canvas.picture, canvas.whole, canvas.padded, canvas.strength) == (
        *2 * (picture(96, 64),),
        Size(96, 64),
        0.5,
    )
    assert (canvas.alpha_HW, canvas.mask_1L1, canvas.shown) == (None, None, None)
    drawn = picture(96, 64, 5)
    assert canvas.finish(drawn) == drawn


@pytest.mark.parametrize(("width", "height"), [(65, 64), (79, 70), (64, 95), (113, 127)])
def test_other_sizes_are_filled_up_to_whole_tokens_and_cut_again(width: int, height: int) -> None:
    start = picture(width, height)
    canvas = made(asked(start))
    padded = canvas.padded
    assert (padded.width % 16, padded.height % 16, canvas.picture.size) == (0, 0, padded)
    assert padded.width - 16 < width <= padded.width
    assert np.array_equal(pixels(canvas.picture)[:height, :width], pixels(start))
    drawn = picture(padded.width, padded.height, 5)
    assert np.array_equal(pixels(canvas.finish(drawn)), pixels(drawn)[:height, :width])


def test_a_start_is_scaled_to_the_size_that_is_asked_for() -> None:
    canvas = made(asked(smooth(256, 128), size=Size(128, 128)))
    assert canvas.whole.size == canvas.picture.size == Size(128, 128)
    assert np.abs(pixels(canvas.picture).astype(int) - pixels(smooth(256, 128))[:, 64:192]).mean() < 3
    assert made(asked(smooth(64, 64), size=Size(128, 96))).whole.size == Size(128, 96)


def test_what_is_larger_than_trained_is_drawn_smaller_and_comes_back_in_place() -> None:
    start = smooth(320, 256)
    canvas = made(asked(start, mask=box(start.size, 64, 64, 192, 192)), SMALL)
    assert (canvas.picture.size.area_px <= 128 * 128, canvas.padded) == (True, Size(320, 256))
    back = canvas.finish(canvas.picture)
    assert np.abs(pixels(back).astype(int) - pixels(start)).max() <= 6
    assert np.array_equal(pixels(back)[:64], pixels(start)[:64])


def test_black_pixels_never_change_and_white_ones_do_beyond_the_feather() -> None:
    start, size = picture(128, 96), Size(128, 96)
    canvas = made(asked(start, mask=box(size, 40, 20, 100, 80)))
    drawn = picture(128, 96, 5)
    found, outside = pixels(canvas.finish(drawn)), np.ones((96, 128), bool)
    outside[20:80, 40:100] = False
    assert np.array_equal(found[outside], pixels(start)[outside])
    inner = (slice(20 + 2 * FEATHER_PX, 80 - 2 * FEATHER_PX), slice(40 + 2 * FEATHER_PX, 100 - 2 * FEATHER_PX))
    assert np.array_equal(found[inner], pixels(drawn)[inner])
    edge = alpha_of(canvas)[50, 40:60].astype(int)
    assert 0 < edge[0] < 20
    assert list(edge) == sorted(edge)
    assert edge[2 * FEATHER_PX] == 255


def test_the_feather_stops_at_the_edge_of_the_picture() -> None:
    size = Size(128, 64)
    alpha = alpha_of(made(asked(picture(128, 64), mask=box(size, 64, 0, 128, 64))))
    assert (alpha[:, 64 + 2 * FEATHER_PX :] == 255).all()
    assert (alpha[:, :64] == 0).all()


def test_fine_lines_are_not_feathered_away() -> None:
    size = Size(128, 64)
    alpha = alpha_of(made(asked(picture(128, 64), mask=box(size, 10, 30, 120, 31))))
    assert (alpha[30, 10:120] == 255).all()
    assert np.count_nonzero(alpha) == 110


def test_gray_changes_by_half() -> None:
    size = Size(64, 64)
    canvas = made(asked(picture(64, 64), mask=box(size, 0, 0, 64, 64, 128)))
    assert tokens_of(canvas) == pytest.approx([128 / 255] * 16)
    drawn = picture(64, 64, 5)
    expected = (pixels(picture(64, 64)).astype(float) * 127 + pixels(drawn).astype(float) * 128) / 255
    assert np.abs(pixels(canvas.finish(drawn)) - expected).max() <= 1


def test_a_token_may_change_as_much_as_any_of_its_pixels() -> None:
    size = Size(70, 64)
    tokens = tokens_of(made(asked(picture(70, 64), mask=box(size, 31, 15, 33, 17))))
    assert np.reshape(tokens, (4, 5)).tolist() == [[0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0] * 5, [0] * 5]
    assert sum(tokens_of(made(asked(picture(70, 64), mask=box(size, 69, 63, 70, 64))))) == 1


@given(st.data())
def test_black_pixels_never_change_whatever_the_mask(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(64, 100)), data.draw(st.integers(64, 100))
    gray = np.zeros((height, width), np.uint8)
    for _ in range(data.draw(st.integers(1, 4))):
        left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
        right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
        gray[top:bottom, left:right] = data.draw(st.integers(1, 255))
    start = picture(width, height)
    canvas = made(asked(start, mask=Mask(width, height, gray.tobytes())), data.draw(st.sampled_from([VARIANT, SMALL])))
    found = pixels(canvas.finish(picture(canvas.picture.width, canvas.picture.height, 5)))
    assert np.array_equal(found[gray == 0], pixels(start)[gray == 0])
    assert (alpha_of(canvas) <= gray).all()
    grid = np.reshape(tokens_of(canvas), canvas.picture.size.grid)
    rows, columns = (
        np.arange(side) * count // whole
        for side, count, whole in zip(
            (height, width), grid.shape, (canvas.padded.height, canvas.padded.width), strict=True
        )
    )
    assert (grid[rows[:, None], columns] * 255 >= gray - 1e-3).all()


def test_margins_are_all_new_and_the_picture_stays() -> None:
    start = picture(96, 64)
    canvas = made(asked(start, extend=Margins(left=20, top=5, bottom=32)))
    assert (canvas.whole.size, canvas.padded) == (Size(116, 101), Size(128, 112))
    found = pixels(canvas.finish(picture(128, 112, 5)))
    assert np.array_equal(found[5:69, 20:], pixels(start))
    far = np.abs(
        found[:, : 20 - 2 * FEATHER_PX].astype(int) - pixels(picture(128, 112, 5))[:101, : 20 - 2 * FEATHER_PX]
    )
    assert far.max() == 0


def test_margins_and_a_mask_go_together() -> None:
    start = picture(96, 64)
    canvas = made(asked(start, mask=box(start.size, 64, 0, 96, 64), extend=Margins(right=32)))
    found = pixels(canvas.finish(picture(128, 64, 5)))
    assert np.array_equal(found[:, :64], pixels(start)[:, :64])
    assert np.array_equal(found[:, 80:], pixels(picture(128, 64, 5))[:, 80:])


def test_the_model_sees_what_was_there_where_it_was() -> None:
    start = picture(96, 64)
    masked = made(asked(start, mask=box(start.size, 0, 0, 32, 32)))
    assert (masked.shown, masked.shown_at) == (start, (0, 0))
    wider = made(asked(start, extend=Margins(left=32, top=16)))
    assert (wider.shown, wider.shown_at) == (start, (1, 2))
    odd = made(asked(start, extend=Margins(left=20, bottom=3)))
    assert odd.shown_at == (0, 2)
    assert odd.shown is not None
    assert np.array_equal(pixels(odd.shown)[:, :80], pixels(start)[:, 12:92])
    again = asked(start, mask=box(start.size, 0, 0, 32, 32), references=(reference(64, 64, 4), Reference(start)))
    assert made(again).shown is None
    unseen = replace(again, references=(Reference(start, strength=0.0),))
    assert made(unseen).shown == start


def test_the_start_is_the_last_reference_and_counts(engines: Engines) -> None:
    variant, start = engines[Kind.KLEIN].variant, picture(64, 64)
    changed = asked(start, mask=box(start.size, 0, 0, 32, 32), references=(reference(64, 64, 1),))
    settled = settle(changed, variant)
    assert settled.places == (Place(1), Place(2, offset=(0, 0)))
    assert settled.references[1] == start
    plain = settle(replace(changed, mask=None), variant)
    assert plain.places == (Place(1),)
    full = tuple(reference(64, 64, n) for n in (1, 2, 3))
    with pytest.raises(InvalidRequest, match="3 reference images and the picture to change, for tiny-klein, which"):
        settle(replace(changed, references=full), variant)
    assert len(settle(replace(changed, mask=None, references=full), variant).references) == 3


def results(engine: Engine, request: ImageRequest) -> list[ImageResult]:
    return [event for event in engine.run(request) if isinstance(event, ImageResult)]


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize(("width", "height"), [(64, 64), (75, 66), (200, 150)])
def test_every_kind_changes_what_is_white_and_keeps_the_rest(
    engines: Engines, kind: Kind, width: int, height: int
) -> None:
    start = picture(width, height)
    mask = box(start.size, 16, 16, 56, 56)
    for references in ((), (reference(80, 64, 2),)):
        (result,) = results(engines[kind], asked(start, mask=mask, references=references))
        assert result.picture.size == start.size
        changed = (pixels(result.picture) != pixels(start)).any(-1)
        white = np.frombuffer(mask.gray, np.uint8).reshape(height, width) > 0
        assert not changed[~white].any()
        assert changed[white].mean() > 0.9


def test_every_seed_is_a_change_of_its_own_alike_in_a_batch(engines: Engines) -> None:
    start = picture(64, 64)
    request = asked(start, 0.8, mask=box(start.size, 16, 16, 56, 56))
    one, two = results(engines[Kind.KLEIN], replace(request, seeds=(1, 2)))
    assert one.picture != two.picture
    assert results(Engine(engines[Kind.KLEIN].files, CPU, 2), replace(request, seeds=(1, 2)))[1].seed == 2
    assert results(engines[Kind.KLEIN], replace(request, seeds=(2,)))[0].picture == two.picture


def test_less_strength_keeps_more_and_takes_fewer_steps(engines: Engines) -> None:
    start, autoencoder = smooth(64, 64), engines[Kind.KLEIN].autoencoder
    latents = grid_to_tokens(encode_reference(autoencoder, start))
    unchanged = pixels(decode(autoencoder, latents, (4, 4))).astype(int)
    distances = []
    for strength, steps in ((0.1, 1), (0.5, 4), (1.0, 8)):
        events = list(engines[Kind.KLEIN].run(asked(start, strength, steps=8)))
        (result,) = [event for event in events if isinstance(event, ImageResult)]
        assert sum(getattr(event, "stage", "") == "denoise" for event in events) == steps + 1
        distances.append(np.abs(pixels(result.picture) - unchanged).mean())
    assert distances == sorted(distances)


def test_at_full_strength_without_a_mask_the_start_has_no_say(engines: Engines) -> None:
    plain = results(engines[Kind.KLEIN], ImageRequest("a cat", (1,), size=Size(64, 64)))
    assert results(engines[Kind.KLEIN], asked(picture(64, 64), 1.0))[0].picture == plain[0].picture


def test_only_native_sizes_can_be_demanded(engines: Engines) -> None:
    with pytest.raises(InvalidRequest, match="was trained up to 128x64, 200x150 was asked for"):
        results(engines[Kind.KLEIN], asked(picture(200, 150), native_only=True))
    (result,) = results(engines[Kind.KLEIN], asked(picture(60 + 15, 64), native_only=True, size=Size(64, 64)))
    assert result.warnings == ()
