import io
import math
from itertools import islice

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from licht.core.errors import InvalidRequest, InvalidSettings
from licht.core.request import Picture
from licht.safety import watermark_search as search
from licht.safety.watermark import Detection, Watermark
from licht.safety.watermark_code import CODED_BITS, GENERATORS, MEMORY, _messages, decode, encode
from licht.safety.watermark_pattern import PERIOD_CELLS, PILOT, SINUSOIDS, patterns
from licht.safety.watermark_search import Found
from licht.safety.watermark_spectrum import Pose, _told_by, cell_values, colour_differences, luminance, spectrum
from tests.support.pictures import picture as noise

PAYLOAD = 0x0123_4567_89AB_CDEF


def scene(width: int = 512, height: int = 512, seed: int = 0) -> Picture:
    """A gradient, edges, and the soft detail of a photograph: noise whose power falls with frequency."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    fx, fy = np.fft.rfftfreq(width), np.fft.fftfreq(height)
    shape = 1 / np.maximum(np.hypot(fx[None, :], fy[:, None]), 1 / max(width, height)) ** 1.4
    detail = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) * shape, (height, width))
    grey = (
        110 + 40 * x / width + 22 * detail / detail.std() + 35 * (np.hypot(x - width / 3, y - height / 2) < height / 5)
    )
    pixels = np.stack([grey, grey * 0.9 + 10, grey * 0.8 + 5], axis=-1)
    return Picture(width, height, np.clip(pixels, 0, 255).astype(np.uint8).tobytes())


def to_image(given: Picture) -> Image.Image:
    return Image.frombytes("RGB", (given.width, given.height), given.rgb)


def to_picture(given: Image.Image) -> Picture:
    return Picture(given.width, given.height, given.convert("RGB").tobytes())


def jpeg(given: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    given.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


@pytest.fixture(scope="module")
def marked(mark: Watermark) -> Image.Image:
    return to_image(mark.embed(scene(), PAYLOAD, nonce=4711))


def test_the_code_corrects_errors() -> None:
    key = bytes(32)
    coded = encode(PAYLOAD, key)
    assert coded.shape == (CODED_BITS,)
    assert set(coded.tolist()) == {-1.0, 1.0}
    rng = np.random.default_rng(0)
    for _ in range(20):
        read, place = decode(coded + rng.normal(0, 0.9, CODED_BITS), key)  # an eighth of the signs are wrong
        assert (read, place is not None) == (PAYLOAD, True)
        assert (encode(read, key) == coded).all()


def test_less_likely_messages_are_asked_for_their_check_too() -> None:
    key, coded = bytes(32), encode(PAYLOAD, bytes(32)).astype(float)
    rng = np.random.default_rng(5)
    first, listed = 0, 0
    for _ in range(12):
        soft = coded + rng.normal(0, 1.45, CODED_BITS)
        messages = list(islice(_messages(soft.reshape(-1, 4)), 20))
        assert len({tuple(bits) for bits in messages}) == 20
        likely = [float(soft @ _coded(bits)) for bits in messages]
        assert likely == sorted(likely, reverse=True)
        first += (_coded(messages[0]) == coded).all()
        read, place = decode(soft, key)
        listed += (read, place is not None) == (PAYLOAD, True)
    assert listed > first


def _coded(bits: list[int]) -> NDArray[np.float64]:
    """The coded bits of a message, tail included: as `encode` makes them of a payload."""
    recent = [0] * MEMORY
    coded = []
    for bit in bits:
        window = [bit, *recent]
        taps = ([generator >> (MEMORY - place) & 1 for place in range(MEMORY + 1)] for generator in GENERATORS)
        coded += [sum(a * b for a, b in zip(window, tap, strict=True)) % 2 * 2 - 1 for tap in taps]
        recent = window[:-1]
    return np.array(coded, float)


def test_what_colour_tells_of_the_picture_does_not_hide_the_mark(mark: Watermark) -> None:
    rng = np.random.default_rng(8)
    stain = 128 + rng.normal(0, 18, (256, 256, 1)) * [1.5, 1.0, 0.2] + rng.normal(0, 3, (256, 256, 3))
    given = Picture(256, 256, np.clip(stain, 0, 255).astype(np.uint8).tobytes())
    marked = mark.embed(given, PAYLOAD, nonce=3)
    signals = []
    for colours in ((), colour_differences(marked)):
        seen = spectrum(luminance(marked), colours)
        cells, rows, columns = cell_values(seen, Pose(1.0, 0.0, 0), np.array([127.5, 127.5]))
        signs, slots = mark._patterns.mark_layer(3, rows, columns)
        signals.append(search._z(cells, signs, slots))
    assert signals[1] > 1.5 * signals[0] > 0
    assert colour_differences(to_picture(to_image(given).convert("L"))) == ()


@pytest.mark.parametrize("read_p", [0.0, 1e-200, 1e-6])
def test_a_payload_is_not_lost_to_a_look_that_was_not_read(
    mark: Watermark, monkeypatch: pytest.MonkeyPatch, read_p: float
) -> None:
    bare, read = Found(0.0, None, None, 0.7, 0.0, False), Found(read_p, PAYLOAD, 5, 0.7, 0.0, False)
    monkeypatch.setattr(search, "_looks", lambda *_: iter([[bare, bare], [read]]))
    found = search.search(scene(64, 64), mark._patterns)
    assert (found.p, found.payload) == (0.0, PAYLOAD if read_p < 1e-9 else None)


def test_a_less_likely_message_does_not_end_the_search(mark: Watermark, monkeypatch: pytest.MonkeyPatch) -> None:
    unsure = Found(1e-30, 99, 5, 1.0, 0.0, False, sure=False)
    sure = Found(1e-200, PAYLOAD, 5, 1.0, 1.0, False, sure=True)
    beyond = Found(0.0, 98, 5, 1.0, 1.0, False, sure=False)
    monkeypatch.setattr(search, "_looks", lambda *_: iter([[unsure], [sure], [beyond]]))
    assert search.search(scene(64, 64), mark._patterns) == sure


def test_colours_that_tell_the_same_are_left_alone() -> None:
    y, x = np.mgrid[0:96, 0:96].astype(np.float32)
    plane = 500 * np.sin(0.7 * x + 0.3 * y).astype(np.float32)
    with np.errstate(all="raise"):
        told = _told_by(np.zeros_like(plane), plane, plane.copy())
    assert np.isfinite(told).all()


def test_noise_and_another_key_hold_no_payload() -> None:
    rng = np.random.default_rng(1)
    assert sum(decode(rng.normal(size=CODED_BITS), bytes(32))[1] is not None for _ in range(100)) <= 1
    assert decode(encode(PAYLOAD, bytes(32)).astype(float), b"x" * 32)[1] is None


@pytest.mark.parametrize("kind", ["scene", "noise", "flat", "black"])
def test_the_mark_is_43_db_below(mark: Watermark, kind: str) -> None:
    given = {
        "scene": scene(),
        "noise": noise(384, 256),
        "flat": Picture(256, 256, bytes([128]) * 196_608),
        "black": Picture(256, 256, bytes(196_608)),
    }[kind]
    made = mark.embed(given, PAYLOAD)
    error = np.frombuffer(given.rgb, np.uint8).astype(float) - np.frombuffer(made.rgb, np.uint8)
    assert 10 * math.log10(255**2 / np.mean(error**2)) >= 43.0
    assert error.any()


def test_it_is_found_and_read(mark: Watermark, marked: Image.Image) -> None:
    found = mark.detect(to_picture(marked))
    assert (found.detected, found.payload, found.nonce) == (True, PAYLOAD, 4711)
    assert found.p < 1e-30
    assert not mark.detect(scene()).detected
    assert not Watermark(b"another key, of thirty-two bytes").detect(to_picture(marked)).detected


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (120, 30, 200)])
def test_a_flat_colour_is_searched_without_a_warning_and_holds_no_mark(
    mark: Watermark, colour: tuple[int, int, int]
) -> None:
    with np.errstate(all="raise"):
        found = mark.detect(Picture(256, 256, bytes(colour) * 256 * 256))
    assert not found.detected
    assert found.p > 0.01


@pytest.mark.parametrize(
    ("attack", "scale", "rotation_deg", "flipped"),
    [
        (lambda i: jpeg(i, 50), 1.0, 0.0, False),
        (lambda i: i.resize((256, 256), Image.Resampling.BICUBIC), 0.5, 0.0, False),
        (lambda i: i.resize((845, 845), Image.Resampling.BICUBIC), 1.65, 0.0, False),
        (lambda i: i.crop((131, 77, 387, 333)), 1.0, 0.0, False),
        (lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 1.0, 0.0, True),
        (lambda i: i.rotate(-2.3, Image.Resampling.BICUBIC), 1.0, 2.3, False),
        (lambda i: jpeg(i.crop((20, 30, 480, 490)).resize((322, 322), Image.Resampling.BICUBIC), 80), 0.7, 0.0, False),
        (lambda i: i.convert("L").point(lambda v: v * 0.7 + 30).convert("RGB"), 1.0, 0.0, False),
    ],
)
def test_it_survives(
    mark: Watermark, marked: Image.Image, attack: object, scale: float, rotation_deg: float, flipped: bool
) -> None:
    found = mark.detect(to_picture(attack(marked)))  # type: ignore[operator]
    assert found.detected
    assert found.payload == PAYLOAD
    assert found.scale == pytest.approx(scale, rel=0.005)
    assert found.rotation_deg == pytest.approx(rotation_deg, abs=0.3)
    assert found.flipped == flipped


def test_a_crop_of_a_busy_picture_is_placed_by_the_sheet(mark: Watermark) -> None:
    """Where the sinusoids are too weak to tell the place by themselves."""
    rng = np.random.default_rng(3)
    busy = to_image(scene()).convert("L")
    grey = np.asarray(busy, float) + rng.normal(0, 22, (512, 512))
    given = to_picture(Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB"))
    whole = to_image(mark.embed(given, PAYLOAD, nonce=99))
    part = to_picture(whole.crop((157, 201, 413, 457)))
    assert not any(p < 1e-9 for p in _without_the_sheet(mark, part))
    found = mark.detect(part)
    assert (found.detected, found.nonce) == (True, 99)


def _without_the_sheet(mark: Watermark, given: Picture) -> list[float]:
    """The p-values of the first round."""
    whole, keyed = spectrum(luminance(given), colour_differences(given)), mark._patterns
    return [
        found.p
        for pose, centre in search._registered(whole, keyed, Pose(1.0, 0.0, 0))
        for found in search._read(whole, keyed, pose, centre, search.TRIALS[0])
    ]


@pytest.mark.parametrize("turn", [Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.TRANSPOSE])
def test_every_orientation_is_found(mark: Watermark, marked: Image.Image, turn: Image.Transpose) -> None:
    assert mark.detect(to_picture(marked.transpose(turn))).payload == PAYLOAD


@pytest.mark.parametrize("size", [(640, 256), (259, 511), (1600, 300)])
def test_any_shape_can_be_marked(mark: Watermark, size: tuple[int, int]) -> None:
    assert mark.detect(mark.embed(scene(*size), PAYLOAD)).payload == PAYLOAD


def test_one_picture_says_nothing_about_the_next(mark: Watermark) -> None:
    """Only the sinusoids repeat. What the p-value tests has a fresh pattern in each picture."""
    keyed = patterns(bytes(range(32)))
    first, _ = keyed.mark_layer(1, slice(0, 300), slice(0, 300))
    second, _ = keyed.mark_layer(2, slice(0, 300), slice(0, 300))
    assert abs(float((first * second).mean())) < 4 / 300
    # a residual lifted from one picture and put on another carries that one's nonce, and no other
    plain = scene()
    lifted = np.frombuffer(mark.embed(plain, 1, nonce=1).rgb, np.uint8).astype(int) - np.frombuffer(plain.rgb, np.uint8)
    third, _ = keyed.mark_layer(3, slice(0, 170), slice(0, 170))
    cells = lifted.reshape(512, 512, 3)[:510, :510, 0].reshape(170, 3, 170, 3).mean((1, 3))
    own, slots = keyed.mark_layer(1, slice(0, 170), slice(0, 170))
    known = slots == PILOT
    assert abs(np.corrcoef(cells[known], third[known])[0, 1]) < 0.05
    assert np.corrcoef(cells[known], own[known])[0, 1] > 0.3


def test_the_pattern_does_not_repeat_within_a_picture() -> None:
    signs, _ = patterns(bytes(32)).mark_layer(5, slice(0, 512), slice(0, 512))
    power = np.abs(np.fft.rfft2(signs)) ** 2
    agreement = np.fft.irfft2(power)
    assert np.sort(agreement.reshape(-1))[-2] < 6 * 512  # the largest but the one at no shift: six sigma


def test_p_values_of_wrong_keys_are_uniform() -> None:
    """One picture, 4,000 keys, shared whitening; the benchmark takes a hundred thousand."""
    from licht.safety.watermark_pattern import mark_layer

    given = scene(320, 320)
    white = spectrum(luminance(given), colour_differences(given))
    cells, rows, columns = cell_values(white, Pose(1.0, 0.0, 0), np.array([159.5, 159.5]))
    p = []
    for trial in range(4000):
        signs, slots = mark_layer(trial.to_bytes(32, "big"), trial, rows, columns)
        known = slots == PILOT
        z = float((cells * signs)[known].sum()) / math.sqrt(float(np.square(cells[known]).sum()))
        p.append(0.5 * math.erfc(z / math.sqrt(2)))
    for bound in (0.1, 0.01, 0.001):
        expected = 4000 * bound
        assert abs(sum(value < bound for value in p) - expected) < 3.29 * math.sqrt(expected) + 3
    assert min(p) > 1e-8


def test_the_spectrum_between_samples_is_weighted_by_sinc() -> None:
    past = np.array([0.0, 1e-9, 0.25, 0.5, 0.999])
    expected = np.sinc(past[:, None] - np.arange(-2, 4))
    np.testing.assert_allclose(search._sinc_weights(past), expected, atol=3e-7)  # 1.3e-7 measured


@pytest.mark.parametrize(("top", "left"), [(0, 0), (1000, 31), (517, 1010)])
def test_the_sheet_agrees_as_a_sum_of_products_says(mark: Watermark, top: int, left: int) -> None:
    keyed = mark._patterns
    rng = np.random.default_rng(2)
    values = rng.normal(size=(40, 50)).astype(np.float32)
    rows, columns = slice(top, top + 40), slice(left, left + 50)
    seen = search._sheet_agreement(values, rows, columns, keyed.sheet_spectrum)
    for nonce in (0, 1, 1023, 1024 * 700 + 5, 2**20 - 1):
        expected = float((values * keyed.nonce_layer(nonce, rows, columns)).sum())
        assert abs(float(seen.reshape(-1)[nonce]) * PERIOD_CELLS - expected) < 2e-4  # 1.1e-5 measured


def test_the_highest_places_of_a_plane_are_those_of_a_full_sort() -> None:
    values = np.random.default_rng(3).permutation(60 * 90).reshape(60, 90).astype(np.float32)
    for count in (1, 7, 60, 200, 6000):
        expected = np.argsort(-values.reshape(-1))[:count].tolist()
        assert search._highest(values, count) == expected
    assert math.isclose(search._deviation(values), float(values.std()), rel_tol=1e-5)


def test_the_p_value_counts_its_trials() -> None:
    assert search.p_value(-40.0, 9) == 1.0
    assert search.p_value(0.0, 9) == pytest.approx(1 - 0.5**9)
    assert search.p_value(7.0, 100) == pytest.approx(100 * 0.5 * math.erfc(7 / math.sqrt(2)), rel=1e-6)
    assert search.p_value(50.0, 100) == 0.0


def test_the_same_key_gives_the_same_patterns() -> None:
    first, second, other = patterns(b"a" * 32), patterns(b"a" * 32), patterns(b"b" * 32)
    assert (first.sheet == second.sheet).all()
    assert (first.sheet != other.sheet).mean() == pytest.approx(0.5, abs=0.01)
    assert first.lines.frequencies_K2.shape == (SINUSOIDS, 2)


def test_small_pictures_stay_as_they_are(mark: Watermark) -> None:
    small = noise(63, 200)
    assert mark.embed(small, PAYLOAD) is small
    for size in ((64, 64), (16, 16), (8, 300), (1, 1)):
        assert isinstance(mark.detect(noise(*size)), Detection)


@pytest.mark.parametrize(("payload", "nonce"), [(-1, 0), (1 << 64, 0), (0, -1), (0, 1 << 20)])
def test_what_does_not_fit_is_refused(mark: Watermark, payload: int, nonce: int) -> None:
    with pytest.raises(InvalidRequest, match="must fit 64 and 20 bits"):
        mark.embed(scene(64, 64), payload, nonce)


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="the watermark key has 5 bytes; use 32"):
        Watermark(b"short")
