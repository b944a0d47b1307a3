"""Finding the watermark blindly: register by the sinusoids, read the nonce, then test what only the key can know.

The search for scale, rotation, orientation, position and nonce looks at the two layers that prove nothing. The p-value
comes from the known signs of the third layer alone. These are independent of the other two and of the picture, so for
each candidate, under the hypothesis "not this key", their normalised correlation is a sum of random signs times fixed
weights: nearly standard normal whatever the picture holds. A look at z then counts as p = 1 - (1 - Q(z))^T. Half of the
chance of a false alarm is given to the first few looks, at the picture as it is, and a quarter to each of the two later
rounds, so T is smaller at first (a weighted Bonferroni correction: the 1/T of all looks add up to at most 1).

1. The picture as it is, or mirrored: places where the sinusoids agree, and that of a picture that was not cropped.
2. Poses whose sinusoids hold power, and those of them that also agree in phase.
3. Small pictures: a crop of a busy picture holds too little of the sinusoids to tell its place, but the sheet still
   answers. It gives the sum of nonce and displacement; the sinusoids then rank the displacements.

Legend: H, W pixels; R, C cells; K sinusoids; N candidates.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from licht.core.request import Picture
from licht.safety.watermark_code import CODED_BITS, decode
from licht.safety.watermark_filters import blurred, high_passed, pulse, sampled, smooth_size
from licht.safety.watermark_pattern import PERIOD_CELLS, PERIOD_PX, PILOT, PITCH_PX, Floats, Patterns

SCALES: Final = (0.45, 2.2)
ROTATION_DEG: Final = 4.0
POSES: Final = 4
"""Poses of the second round: half of them those with the most power, half those that agree best in phase."""
PLACES: Final = 2
"""Positions tried for a pose: where the sinusoids agree best, and that of a picture that was not cropped."""
NONCES: Final = 2
_FIRST_LOOKS: Final = 2 * PLACES * NONCES
_SECOND_LOOKS: Final = POSES * 2 * PLACES * NONCES
_SHEET_POSES: Final = 3
_SHEET_PEAKS: Final = 2
_DISPLACEMENTS: Final = 128
_THIRD_LOOKS: Final = _SHEET_POSES * _SHEET_PEAKS * (_DISPLACEMENTS + NONCES)
TRIALS: Final = (2 * _FIRST_LOOKS, 4 * _SECOND_LOOKS, 4 * _THIRD_LOOKS)
"""How often the p-value's signal is looked at, at most, in each round, divided by the round's share."""
_CANDIDATES: Final = 24
"""Poses of small pictures that are asked whether their sinusoids agree; large pictures need fewer."""
_NOTABLE: Final = 3.5
"""In large pictures the sinusoids' power stands out, and looking at every other pose would take long."""
_USUAL_SCALES: Final = (0.5, 2 / 3, 0.75, 1.5, 2.0)
"""Asked too: busy pictures drown the power of the sinusoids, and people resize by simple factors."""
_WINDOW_PX: Final = 1024
_ENOUGH: Final = 1e-14
_SMALL_PX: Final = 300_000
_LEAST_PX: Final = 24
"""A side of less holds no mark, whatever was done to a picture that had one."""

# the orientations of a square up to a half turn: as it was, mirrored, a quarter turn, and both
_ORIENTATIONS: Final = (
    ((1.0, 0.0), (0.0, 1.0)),
    ((-1.0, 0.0), (0.0, 1.0)),
    ((0.0, -1.0), (1.0, 0.0)),
    ((0.0, 1.0), (1.0, 0.0)),
)
_WORTH_DECODING: Final = 1e-3
_OVERHANG: Final = 0.15


@dataclass(frozen=True, slots=True)
class Found:
    """The best candidate of one search."""

    p: float
    payload: int | None
    nonce: int | None
    scale: float
    rotation_deg: float
    flipped: bool


@dataclass(frozen=True, slots=True)
class Pose:
    """How marked pixels came to lie in the picture: turned or mirrored, rotated, scaled."""

    scale: float
    rotation: float
    orientation: int
    """0 to 7: the four of `_ORIENTATIONS`, then the same upside down."""

    def matrix(self) -> NDArray[np.float64]:
        """(2, 2): from marked pixels to pixels of the picture."""
        cos, sin = math.cos(self.rotation), math.sin(self.rotation)
        turn = np.array([[cos, -sin], [sin, cos]])
        sign = 1.0 if self.orientation < 4 else -1.0
        return np.asarray(self.scale * sign * turn @ np.array(_ORIENTATIONS[self.orientation % 4]))

    def upside_down(self) -> "Pose":
        """The same after a half turn."""
        return Pose(self.scale, self.rotation, (self.orientation + 4) % 8)


_AS_IT_WAS: Final = (Pose(1.0, 0.0, 0), Pose(1.0, 0.0, 1))
"""Always tried, and exactly so: most pictures were never resized, and texture can hide the sinusoids."""


@dataclass(frozen=True)
class Spectrum:
    """A picture's whitened spectrum, `rfft2` of (H, W), and the inverse of its noise density."""

    height: int
    width: int
    white: NDArray[np.complex64]
    weight: Floats
    centred: NDArray[np.complex64]
    """The whole plane of `white`, (H, W), with phases counted from the picture's centre."""


def search(picture: Picture, keyed: Patterns) -> Found:
    """Look for the mark of `keyed`; see the module's text for what the result means."""
    best = Found(1.0, None, None, 1.0, 0.0, flipped=False)
    side_px = max(picture.width, picture.height)
    if min(picture.width, picture.height) < _LEAST_PX:
        return best
    whole = spectrum(luminance(picture))
    coarse = whole
    if side_px > _WINDOW_PX * 1.25:
        coarse = spectrum(_middle(luminance(picture), _WINDOW_PX))
    for looked in _looks(whole, coarse, keyed):
        best = min(best, *looked, key=lambda found: found.p)
        if best.p < _ENOUGH and best.payload is not None:
            return best
    return best


def _looks(whole: Spectrum, coarse: Spectrum, keyed: Patterns) -> Iterator[list[Found]]:
    """What each look finds, likeliest first."""
    for pose in _AS_IT_WAS:
        for registered, centre in _registered(whole, keyed, pose):
            yield _read(whole, keyed, registered, centre, TRIALS[0])
    small = whole.height * whole.width <= _SMALL_PX
    for number, upright in enumerate(_likely(whole, coarse, keyed)):
        for pose in (upright, upright.upside_down()):
            for registered, centre in _registered(whole, keyed, pose):
                yield _read(whole, keyed, registered, centre, TRIALS[1])
        # once for the pose with the most power, once for the one that agrees best
        if small and number == 0:
            yield from _by_sheet(whole, keyed, _AS_IT_WAS[0])
        if small and number in (0, POSES // 2):
            yield from _by_sheet(whole, keyed, upright)


def _likely(whole: Spectrum, coarse: Spectrum, keyed: Patterns) -> Iterator[Pose]:
    """`POSES` poses, sharpened: half of them have the most power; of the others in question, those that agree best."""
    small = whole.height * whole.width <= _SMALL_PX
    candidates = _poses(coarse, keyed, _CANDIDATES if small else POSES, _NOTABLE if not small else -math.inf)
    first, others = candidates[: POSES // 2], candidates[POSES // 2 :]
    for pose in first:
        yield _power_sharpened(whole, keyed, pose)
    # not before the others were asked for: most marks are found without them
    others += [Pose(scale, 0.0, 0) for scale in _USUAL_SCALES] if small else []
    sharp = [_power_sharpened(whole, keyed, pose) for pose in others]
    yield from sorted(sharp, key=lambda pose: -_agreement(whole, keyed, pose))[: POSES // 2]


def _power_sharpened(whole: Spectrum, keyed: Patterns, pose: Pose) -> Pose:
    for step_px in (2.0, 0.7):
        pose = _sharpened(whole, keyed, pose, None, step_px)
    return pose


def _agreement(whole: Spectrum, keyed: Patterns, pose: Pose) -> float:
    """How far the best place of a pose, upright or upside down, stands out: in units of chance."""
    found = []
    for way in (pose, pose.upside_down()):
        values_K = _line_values(whole, keyed, way)
        norm = float(np.linalg.norm(values_K))
        # a picture of one flat colour has no power at any line
        found.append(float(_surface(keyed, values_K).max()) / norm if norm > 0 else 0.0)
    return max(found)


def luminance(picture: Picture) -> Floats:
    """(H, W): the mean of red, green and blue, which is what the mark was added to."""
    pixels = np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3)
    return pixels.astype(np.float32) @ np.full(3, 1 / 3, np.float32)


def _middle(values: Floats, side_px: int) -> Floats:
    height, width = values.shape
    top, left = max(0, (height - side_px) // 2), max(0, (width - side_px) // 2)
    return values[top : top + side_px, left : left + side_px]


def spectrum(values: Floats) -> Spectrum:
    """Even out a picture's contrast in place and its power in frequency, so that the mark stands out of noise.

    Detail is divided by its local variance, which weights every place by how little the picture hides the mark there.
    """
    height, width = values.shape
    detail = values - blurred(values, 8)
    detail /= np.square(np.sqrt(blurred(detail * detail, 4)) + 2.0)
    raw = np.fft.rfft2(detail)
    power = np.asarray(raw.real**2 + raw.imag**2, np.float32)
    reach = max(2, min(height, width) // 64)
    density = np.pad(power, ((reach, reach), (reach, reach)), mode="wrap")
    density = blurred(density, reach)[reach:-reach, reach:-reach]
    # the floor: where compression has left nothing at all, there is no mark either, and nothing to amplify
    weight = 1 / np.sqrt(density + 0.6 * density.mean() + 1e-12)
    white = (raw * weight).astype(np.complex64)
    return Spectrum(height, width, white, weight.astype(np.float32), _centred(white, height, width))


def _centred(white: NDArray[np.complex64], height: int, width: int) -> NDArray[np.complex64]:
    """The whole plane, frequency 0 in the middle, phases counted from the picture's centre."""
    rows, columns = np.arange(height), np.arange(width)
    full = np.empty((height, width), np.complex64)
    half = white.shape[1]
    full[:, :half] = white
    mirrored = np.conj(white[-rows % height][:, 1 : width - half + 1])
    full[:, half:] = mirrored[:, ::-1]
    signed_rows, signed_columns = (
        (rows + height // 2) % height - height // 2,
        (columns + width // 2) % width - width // 2,
    )
    down = np.exp(1j * np.pi * signed_rows * (height - 1) / height).astype(np.complex64)
    across = np.exp(1j * np.pi * signed_columns * (width - 1) / width).astype(np.complex64)
    return np.fft.fftshift(full * down[:, None] * across[None, :])


def _poses(coarse: Spectrum, keyed: Patterns, count: int, notable: float) -> list[Pose]:
    """The `count` most likely poses, best first: where the sinusoids' places hold the most power.

    A pose must stand `notable` standard deviations above the mean of all.
    """
    finest = 0.55 / (max(coarse.height, coarse.width) * 0.12)
    scales = np.exp(np.arange(math.log(SCALES[0]), math.log(SCALES[1]), finest))
    most = math.radians(ROTATION_DEG)
    turns = np.linspace(-most, most, 2 * math.ceil(most / finest) + 1)
    doubled = _doubled_power(coarse)
    base_K2 = keyed.lines.frequencies_K2 / PERIOD_PX
    found: list[tuple[float, Pose]] = []
    for number, orientation in enumerate(_ORIENTATIONS):
        turned_K2 = base_K2 @ np.array(orientation).T
        scores = _scores(doubled, coarse, turned_K2, scales, turns)
        least = float(scores.mean() + notable * scores.std()) if math.isfinite(notable) else np.finfo(np.float32).min
        for _ in range(count):
            s, t = np.unravel_index(int(scores.argmax()), scores.shape)
            if scores[s, t] < least:
                break
            found.append((float(scores[s, t]), Pose(float(scales[s]), float(turns[t]), number)))
            scores[max(0, s - 3) : s + 4, max(0, t - 3) : t + 4] = -np.inf
    ranked = [pose for _, pose in sorted(found, key=lambda entry: -entry[0])]
    return ranked[:count]


def _doubled_power(coarse: Spectrum) -> Floats:
    """Power on a grid of half frequencies, (2H, 2W), capped: no single peak of the picture may decide."""
    plane = coarse.centred
    between = 2 / np.pi
    right = (plane + np.roll(plane, -1, 1)) * between
    doubled = np.empty((2 * plane.shape[0], 2 * plane.shape[1]), np.float32)
    for offset, part in ((0, plane), (1, right)):
        below = (part + np.roll(part, -1, 0)) * between
        doubled[0::2, offset::2] = part.real**2 + part.imag**2
        doubled[1::2, offset::2] = below.real**2 + below.imag**2
    return np.minimum(doubled, 8.0)


def _scores(
    doubled: Floats,
    coarse: Spectrum,
    lines_K2: NDArray[np.float64],
    scales: NDArray[np.float64],
    turns: NDArray[np.float64],
) -> Floats:
    """(scales, turns): mean power where the sinusoids would lie."""
    cos, sin = np.cos(turns), np.sin(turns)
    x_TK = cos[:, None] * lines_K2[:, 0] - sin[:, None] * lines_K2[:, 1]
    y_TK = sin[:, None] * lines_K2[:, 0] + cos[:, None] * lines_K2[:, 1]
    scores = np.empty((len(scales), len(turns)), np.float32)
    rows, columns = doubled.shape
    flat = doubled.reshape(-1)
    for number, scale in enumerate(scales):
        row = np.rint(y_TK * (rows / scale)).astype(np.int32) + 2 * (coarse.height // 2)
        column = np.rint(x_TK * (columns / scale)).astype(np.int32) + 2 * (coarse.width // 2)
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        power = flat[np.where(inside, row * columns + column, 0)]
        # places beyond the picture's own frequencies count as noise
        scores[number] = np.where(inside, power, 1.0).mean(axis=1)
    return scores


def _values_at(whole: Spectrum, frequencies_N2: NDArray[np.float64]) -> NDArray[np.complex128]:
    """(N,) the centred spectrum between its samples: frequencies in cycles a pixel (x, y), 6 x 6 samples of sinc."""
    places = []
    for axis, size in ((1, whole.height), (0, whole.width)):
        exact = frequencies_N2[:, axis] * size + size // 2
        index_N6 = np.floor(exact).astype(int)[:, None] + np.arange(-2, 4)
        places.append((np.clip(index_N6, 0, size - 1), np.sinc(exact[:, None] - index_N6)))
    (rows_N6, row_weights), (columns_N6, column_weights) = places
    block = whole.centred[rows_N6[:, :, None], columns_N6[:, None, :]]
    return np.asarray(np.einsum("nij,ni,nj->n", block, row_weights, column_weights))


def _line_values(whole: Spectrum, keyed: Patterns, pose: Pose) -> NDArray[np.complex128]:
    """(K,) what the picture holds at the sinusoids, their own phases taken off."""
    inverse = np.linalg.inv(pose.matrix()).T
    frequencies = keyed.lines.frequencies_K2 / PERIOD_PX @ inverse.T
    values = _values_at(whole, frequencies)
    values *= np.exp(-1j * keyed.lines.phases_K)
    size = np.abs(values)
    # no single line may decide; and a line counts more where the picture holds less of its own
    return np.asarray(values * np.minimum(1.0, 4.0 / np.maximum(size, 1.0)) * _relative_weight(whole, frequencies))


def _relative_weight(whole: Spectrum, frequencies_N2: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) the weight of `whole` at frequencies (x, y), divided by its mean over them."""
    sign = np.where(frequencies_N2[:, 0] < 0, -1, 1)
    row = np.rint(sign * frequencies_N2[:, 1] * whole.height).astype(int) % whole.height
    column = np.minimum(np.rint(np.abs(frequencies_N2[:, 0]) * whole.width).astype(int), whole.width // 2)
    weight = whole.weight[row, column].astype(np.float64)
    return np.asarray(weight / weight.mean())


def _registered(whole: Spectrum, keyed: Patterns, pose: Pose) -> Iterator[tuple[Pose, NDArray[np.float64]]]:
    """The pose, sharpened, and where the picture's centre lies in marked pixels, (x, y) modulo the period.

    Two places are offered: where the sinusoids agree best, and where the centre lies in a picture that was not cropped.
    """
    surface = _surface(keyed, _line_values(whole, keyed, pose))
    row, column = np.unravel_index(int(surface.argmax()), surface.shape)
    agreeing, uncropped = np.array([column, row], float) * PITCH_PX, (_extent(whole, pose) - 1) / 2
    yield _aligned(whole, keyed, pose, agreeing)
    apart = np.abs((agreeing - uncropped + PERIOD_PX / 2) % PERIOD_PX - PERIOD_PX / 2).max()
    if apart > 2 * PITCH_PX:
        yield _aligned(whole, keyed, pose, uncropped)


def _surface(keyed: Patterns, values_K: NDArray[np.complex128]) -> Floats:
    """(PERIOD_CELLS, PERIOD_CELLS): how well the sinusoids agree with each place, in steps of a cell."""
    cos_KC, sin_KC = keyed.lines.waves(0)
    turned_cos_KR, turned_sin_KR = keyed.lines.waves(1)
    real, imag = (np.asarray(part, np.float32)[:, None] for part in (values_K.real, values_K.imag))
    # the product of three complex numbers, its real part
    upright_KR = real * turned_cos_KR - imag * turned_sin_KR
    across_KR = real * turned_sin_KR + imag * turned_cos_KR
    return np.asarray(upright_KR.T @ cos_KC - across_KR.T @ sin_KC)


def _extent(whole: Spectrum, pose: Pose) -> NDArray[np.float64]:
    """(2,) width and height of the picture in marked pixels, its rotation apart."""
    upright = Pose(pose.scale, 0.0, pose.orientation).matrix()
    return np.asarray(np.abs(np.linalg.inv(upright)) @ [whole.width, whole.height])


def _aligned(
    whole: Spectrum, keyed: Patterns, pose: Pose, centre: NDArray[np.float64]
) -> tuple[Pose, NDArray[np.float64]]:
    """Pose and centre, improved in turn until the sinusoids agree to an eighth of a pixel."""
    for step_px in (0.5, 0.125):
        centre = _nudged(whole, keyed, pose, centre, step_px)
        pose = _sharpened(whole, keyed, pose, centre, step_px)
    return pose, centre


def _nudged(
    whole: Spectrum, keyed: Patterns, pose: Pose, centre: NDArray[np.float64], step_px: float
) -> NDArray[np.float64]:
    """`centre` moved by up to four steps to where the sinusoids agree best."""
    values_K = _line_values(whole, keyed, pose)
    steps = np.arange(-4, 5) * step_px
    x_KN = np.exp(-2j * np.pi * keyed.lines.frequencies_K2[:, :1] / PERIOD_PX * (centre[0] + steps))
    y_KN = np.exp(-2j * np.pi * keyed.lines.frequencies_K2[:, 1:] / PERIOD_PX * (centre[1] + steps))
    agreement = np.einsum("k,kn,km->nm", values_K, y_KN, x_KN).real
    row, column = np.unravel_index(int(agreement.argmax()), agreement.shape)
    return np.asarray(centre + np.array([steps[column], steps[row]]))


def _sharpened(
    whole: Spectrum, keyed: Patterns, pose: Pose, centre: NDArray[np.float64] | None, step_px: float
) -> Pose:
    """`pose` changed by up to three steps in scale and rotation; a step moves the picture's far edge by `step_px`.

    With the `centre` known, the sinusoids must agree in phase; without it, only their power counts.
    """
    step = step_px / (max(whole.height, whole.width) / 2)
    near = [
        Pose(
            min(max(pose.scale * math.exp(a * step), SCALES[0]), SCALES[1]), pose.rotation + b * step, pose.orientation
        )
        for a in range(-3, 4)
        for b in range(-3, 4)
    ]
    inverse_N22 = np.stack([np.linalg.inv(one.matrix()).T for one in near])
    lines_K2 = keyed.lines.frequencies_K2 / PERIOD_PX
    frequencies_NK2 = np.einsum("nij,kj->nki", inverse_N22, lines_K2)
    values_NK = _values_at(whole, frequencies_NK2.reshape(-1, 2)).reshape(len(near), -1)
    if centre is None:
        score_N = np.minimum(np.abs(values_NK) ** 2, 16.0).mean(axis=1)
    else:
        expected_K = np.exp(-1j * (keyed.lines.phases_K + 2 * np.pi * (lines_K2 @ centre)))
        score_N = (values_NK * expected_K).real.mean(axis=1)
    return near[int(score_N.argmax())]


def _read(
    whole: Spectrum,
    keyed: Patterns,
    pose: Pose,
    centre: NDArray[np.float64],
    trials: int,
) -> list[Found]:
    """What the cells of a registered picture say: the likeliest nonces, each tested and decoded."""
    values_RC, rows, columns = cell_values(whole, pose, centre)
    agreement = _sheet_agreement(values_RC, rows, columns, keyed.sheet_spectrum)
    found = []
    for nonce in _highest(agreement, NONCES):
        signs_RC, slots_RC = keyed.mark_layer(nonce, rows, columns)
        p = p_value(_z(values_RC, signs_RC, slots_RC), trials)
        payload = None
        if p < _WORTH_DECODING:
            product_RC = values_RC * signs_RC
            sums = np.bincount(slots_RC.reshape(-1), product_RC.reshape(-1), minlength=CODED_BITS + 1)
            read, _, sound = decode(sums[:CODED_BITS].astype(np.float64), keyed.check_key)
            payload = read if sound else None
        mirrored = pose.orientation % 4 in (1, 3)
        found.append(Found(p, payload, nonce, pose.scale, math.degrees(pose.rotation), mirrored))
    return found


def _z(values_RC: Floats, signs_RC: Floats, slots_RC: NDArray[np.int16]) -> float:
    """The correlation with the known signs, in standard deviations of what random signs would give."""
    known = slots_RC == PILOT
    values = values_RC[known]
    energy = float(np.vdot(values, values))
    return float(np.vdot(values, signs_RC[known])) / math.sqrt(energy) if energy > 0 else 0.0


def _by_sheet(whole: Spectrum, keyed: Patterns, pose: Pose) -> Iterator[list[Found]]:
    """Looks at the places that sheet and sinusoids propose together; the best of them is read in full.

    Where the sheet answers, it tells the sum of nonce and displacement, both in cells. A crop lies right and below of
    its picture's origin, by no more than its own size if at least a quarter was kept: the sinusoids rank those places.
    """
    uncropped = (_extent(whole, pose) - 1) / 2
    peaks: dict[int, tuple[float, NDArray[np.float64], tuple[Floats, slice, slice]]] = {}
    for phase in ((-0.75, -0.75), (-0.75, 0.75), (0.75, -0.75), (0.75, 0.75)):
        centre = uncropped + phase
        viewed = cell_values(whole, pose, centre)
        agreement = _sheet_agreement(*viewed, keyed.sheet_spectrum).reshape(-1)
        for total in _highest(agreement, _SHEET_PEAKS):
            if total not in peaks or peaks[total][0] < agreement[total]:
                peaks[total] = float(agreement[total]), centre, viewed
    best = sorted(peaks.items(), key=lambda peak: -peak[1][0])[:_SHEET_PEAKS]
    values_K = _line_values(whole, keyed, pose)
    for total, (_, centre, (values_RC, rows, columns)) in best:
        turned = np.exp(-2j * np.pi * (keyed.lines.frequencies_K2 / PERIOD_PX @ centre))
        surface = _surface(keyed, values_K * turned)
        down, right = rows.stop - rows.start, columns.stop - columns.start
        places = _highest(surface[: down + 2, : right + 2], _DISPLACEMENTS)
        looks = []
        for place in places:
            at_row, at_column = divmod(place, right + 2)
            nonce = (total // PERIOD_CELLS - at_row) % PERIOD_CELLS * PERIOD_CELLS
            nonce += (total - at_column) % PERIOD_CELLS
            moved = (slice(start.start + by, start.stop + by) for start, by in ((rows, at_row), (columns, at_column)))
            looks.append((_z(values_RC, *keyed.mark_layer(nonce, *moved)), at_row, at_column))
        z, at_row, at_column = max(looks)
        if p_value(z, TRIALS[2]) < _WORTH_DECODING:
            registered, exact = _aligned(whole, keyed, pose, centre + np.array([at_column, at_row]) * PITCH_PX)
            yield _read(whole, keyed, registered, exact, TRIALS[2])
        else:
            yield [Found(p_value(z, TRIALS[2]), None, None, pose.scale, math.degrees(pose.rotation), flipped=False)]


def p_value(z: float, trials: int) -> float:
    """The probability that the best of `trials` standard normal values reaches `z`."""
    single = 0.5 * math.erfc(z / math.sqrt(2))
    return -math.expm1(trials * math.log1p(-single)) if single < 1 else 1.0


def cell_values(whole: Spectrum, pose: Pose, centre: NDArray[np.float64]) -> tuple[Floats, slice, slice]:
    """(R, C) filtered values at the cells that the picture covers, and which cells these are."""
    upright, height, width = _at_scale_one(whole, pose.scale)
    middle = np.array([(whole.width - 1) / 2, (whole.height - 1) / 2])
    corners_42 = np.array([[x, y] for x in (-1, 1) for y in (-1, 1)]) * (middle + 0.5)
    reached_42 = corners_42 @ np.linalg.inv(pose.matrix()).T
    # a picture begins at its own origin, or right and below of it when it was cropped; rotation pushes corners out
    overhang = 8 + _OVERHANG * np.ptp(reached_42, axis=0).max()
    centre = centre - np.floor((reached_42.min(axis=0) + centre + overhang) / PERIOD_PX) * PERIOD_PX
    first = np.maximum(np.ceil((reached_42.min(axis=0) + centre) / PITCH_PX), 0).astype(int)
    last = np.maximum(np.floor((reached_42.max(axis=0) + centre) / PITCH_PX), first + 1).astype(int)
    columns, rows = slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1]))
    at_x = np.arange(columns.start, columns.stop) * PITCH_PX + 1 - centre[0]
    at_y = np.arange(rows.start, rows.stop) * PITCH_PX + 1 - centre[1]
    matrix = pose.matrix()
    x_RC = (matrix[0, 0] * at_x[None, :] + matrix[0, 1] * at_y[:, None] + middle[0]) * (width / whole.width)
    y_RC = (matrix[1, 0] * at_x[None, :] + matrix[1, 1] * at_y[:, None] + middle[1]) * (height / whole.height)
    values_RC = high_passed(sampled(upright, y_RC.astype(np.float32), x_RC.astype(np.float32)))
    values_RC /= np.sqrt(blurred(values_RC * values_RC, 5)) + 1e-3 * values_RC.std() + 1e-12
    return np.asarray(np.clip(values_RC, -3, 3), np.float32), rows, columns


def _at_scale_one(whole: Spectrum, scale: float) -> tuple[Floats, int, int]:
    """The picture at the marked size, weighted by one over its noise and filtered like the mark's pulses."""
    height, width = smooth_size(whole.height / scale), smooth_size(whole.width / scale)
    rows, columns = min(height, whole.height), min(width // 2, whole.width // 2) + 1
    down = np.fft.fftfreq(whole.height)[:, None] * whole.height
    across = np.arange(columns)[None, :]
    kept = whole.white[:, :columns] * whole.weight[:, :columns]
    kept = kept * pulse(down / height).astype(np.float32) * pulse(across / width).astype(np.float32)
    half = (rows - 1) // 2
    resized = np.zeros((height, width // 2 + 1), np.complex64)
    resized[: half + 1, :columns] = kept[: half + 1]
    if half:
        resized[-half:, :columns] = kept[-half:]
    return np.asarray(np.fft.irfft2(resized, (height, width)), np.float32), height, width


def _sheet_agreement(values_RC: Floats, rows: slice, columns: slice, sheet_spectrum: NDArray[np.complex64]) -> Floats:
    """(PERIOD_CELLS, PERIOD_CELLS): how well the displaced sheet agrees with the cells, for every displacement."""
    period = PERIOD_CELLS
    at_R, at_C = np.arange(rows.start, rows.stop), np.arange(columns.start, columns.stop)
    used = min(period, len(at_R))
    folded = np.zeros((used, period), np.float32)
    for top in range(0, len(at_R), period):
        for left in range(0, len(at_C), period):
            part = values_RC[top : top + period, left : left + period]
            folded[: len(part), at_C[left : left + period] % period] += part
    # most rows are empty: transform those that are not, then the columns
    plane = np.zeros((period, period // 2 + 1), np.complex64)
    plane[at_R[:used] % period] = np.fft.rfft(folded, axis=1)
    return np.asarray(np.fft.irfft2(np.conj(np.fft.fft(plane, axis=0)) * sheet_spectrum, (period, period)))


def _highest(values: Floats, count: int) -> list[int]:
    """The flat places of the `count` highest values, the highest first."""
    flat = values.reshape(-1)
    count = min(count, flat.size)
    best = np.argpartition(flat, -count)[-count:]
    return [int(place) for place in best[np.argsort(-flat[best])]]
