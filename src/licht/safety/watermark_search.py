"""Finding the watermark blindly: register by the sinusoids, read the nonce, then test what only the key can know.

The search for scale, rotation, orientation, position and nonce looks at the two layers that prove nothing. The p-value
comes from the known signs of the third layer alone. These are independent of the other two and of the picture, so for
each candidate, under the hypothesis "not this key", their normalised correlation is a sum of random signs times fixed
weights: nearly standard normal whatever the picture holds. A look at z then counts as p = 1 - (1 - Q(z))^T. Half of the
chance of a false alarm is given to the first few looks, at the picture as it is, and a quarter to each of the two later
rounds, so T is smaller at first (a weighted Bonferroni correction: the 1/T of all looks add up to at most 1).

1. The picture as it is, or mirrored: where the sinusoids agree best, the place of a picture that was not cropped, and in
   small pictures where the sinusoids agree best among crops of at least a quarter.
2. Poses whose sinusoids hold power, and those of them that also agree in phase.
3. Small pictures: a crop of a busy picture holds too little of the sinusoids to tell its place, and too little of the
   sheet to tell its nonce. The sheet proposes sums of nonce and displacement, the sinusoids displacements; the pairs
   that both like best are looked at, and the best of those again from places close by.

Legend: H, W pixels; R, C cells; K sinusoids; N candidates.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from licht.core.request import Picture
from licht.safety.watermark_code import CODED_BITS, decode
from licht.safety.watermark_pattern import PERIOD_CELLS, PERIOD_PX, PILOT, PITCH_PX, Floats, Patterns
from licht.safety.watermark_spectrum import (
    ORIENTATIONS,
    Pose,
    Spectrum,
    carried,
    cell_values,
    colour_differences,
    extent,
    luminance,
    spectrum,
)

SCALES: Final = (0.45, 2.2)
ROTATION_DEG: Final = 4.0
POSES: Final = 4
"""Poses of the second round: half of them those with the most power, half those that agree best in phase."""
PLACES: Final = 2
"""Positions tried for a pose: where the sinusoids agree best, and that of a picture that was not cropped."""
NONCES: Final = 2
_MORE_NONCES: Final = 4
"""At a third place of small pictures that may be crops, where sinusoids and sheet are weakest."""
_FIRST_LOOKS: Final = 2 * (PLACES * NONCES + _MORE_NONCES)
_SECOND_LOOKS: Final = POSES * 2 * PLACES * NONCES
_SHEET_POSES: Final = 3
_SHEET_TOTALS: Final = 64
"""Sums of nonce and displacement that the sheet proposes for each of `_PHASES`."""
_PAIRS: Final = 48
_PROMISING: Final = 3.2
_CLOSER: Final = 2
"""How many of the pairs are looked at again from close by, if they reach `_PROMISING`."""
_PHASES: Final = ((-0.75, -0.75), (-0.75, 0.75), (0.75, -0.75), (0.75, 0.75))
"""Pixels between the corners of cells that are tried: half a cell apart."""
_CLOSE_PX: Final = (-0.8, -0.4, 0.0, 0.4, 0.8)
_THIRD_LOOKS: Final = _SHEET_POSES * (_PAIRS + _CLOSER * len(_CLOSE_PX) ** 2)
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

_WORTH_DECODING: Final = 1e-3
_WORTH_TELLING: Final = 1e-9
"""A payload from another look than the likeliest must come from one that would do by itself: a check can agree by chance."""
_BLOCK_COLUMNS: Final = 57
"""A ninth of the sheet's spectrum: half a megabyte at a time."""
_TAPS: Final = np.arange(-2, 4)
"""Samples around a frequency that tell the spectrum between them."""
_ALTERNATING: Final = np.array([1, -1, 1, -1, 1, -1], np.float32)


@dataclass(frozen=True, slots=True)
class Found:
    """The best candidate of one search."""

    p: float
    payload: int | None
    nonce: int | None
    scale: float
    rotation_deg: float
    flipped: bool
    sure: bool = False
    """Whether the payload is the likeliest message of all, whose check agrees by chance once in 65,536 times."""


_AS_IT_WAS: Final = (Pose(1.0, 0.0, 0), Pose(1.0, 0.0, 1))
"""Always tried, and exactly so: most pictures were never resized, and texture can hide the sinusoids."""


def search(picture: Picture, keyed: Patterns) -> Found:
    """Look for the mark of `keyed`; see the module's text for what the result means.

    The smallest p-value and the payload may come from different looks: not every look is followed by reading.
    """
    best = read = Found(1.0, None, None, 1.0, 0.0, flipped=False)
    side_px = max(picture.width, picture.height)
    if min(picture.width, picture.height) < _LEAST_PX:
        return best
    values, colours = luminance(picture), colour_differences(picture)
    whole = spectrum(values, colours)
    coarse = whole
    if side_px > _WINDOW_PX * 1.25:
        coarse = spectrum(_middle(values, _WINDOW_PX))
    for looked in _looks(whole, coarse, keyed):
        best = min(best, *looked, key=lambda found: found.p)
        read = min((read, *(found for found in looked if found.payload is not None)), key=lambda found: found.p)
        # less likely messages may be mistaken for the payload: another look may hold the picture in full
        if read.p < _ENOUGH and read.sure:
            break
    return replace(read, p=best.p) if read.p < _WORTH_TELLING else best


def _looks(whole: Spectrum, coarse: Spectrum, keyed: Patterns) -> Iterator[list[Found]]:
    """What each look finds, likeliest first."""
    small = whole.height * whole.width <= _SMALL_PX
    for pose in _AS_IT_WAS:
        for registered, centre in _registered(whole, keyed, pose):
            yield _read(whole, keyed, registered, centre, TRIALS[0])
        if small:
            # the pose is not sharpened: the sinusoids of a small crop would lead it astray
            centre = _within_reach(whole, keyed, pose)
            for step_px in (0.5, 0.125):
                centre = _nudged(whole, keyed, pose, centre, step_px)
            yield _read(whole, keyed, pose, centre, TRIALS[0], _MORE_NONCES)
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
    return max(float(_reach(whole, keyed, way).max()) for way in (pose, pose.upside_down()))


def _reach(whole: Spectrum, keyed: Patterns, pose: Pose) -> Floats:
    """`_places` of a picture that was not cropped and of all crops that kept a quarter or more."""
    covered = extent(whole, pose)
    width, height = np.minimum(np.ceil(covered / PITCH_PX) + 2, PERIOD_CELLS).astype(int)
    return _places(whole, keyed, pose, (covered - 1) / 2, int(height), int(width))


def _within_reach(whole: Spectrum, keyed: Patterns, pose: Pose) -> NDArray[np.float64]:
    """(x, y) of the picture's centre in marked pixels where `_reach` is highest."""
    reach = _reach(whole, keyed, pose)
    row, column = np.unravel_index(int(reach.argmax()), reach.shape)
    return np.asarray((extent(whole, pose) - 1) / 2 + np.array([column, row]) * PITCH_PX)


def _places(
    whole: Spectrum, keyed: Patterns, pose: Pose, origin: NDArray[np.float64], height: int, width: int
) -> Floats:
    """(height, width): how well the sinusoids agree, in units of chance, with a centre so many cells from `origin`.

    A crop lies right and below of its picture's origin, by no more than its own size if at least a quarter was kept:
    to ask for no more than that leaves less to chance.
    """
    values_K = _line_values(whole, keyed, pose)
    norm = float(np.linalg.norm(values_K))
    # a picture of one flat colour has no power at any line
    turned = values_K * np.exp(-2j * np.pi * (keyed.lines.frequencies_K2 / PERIOD_PX @ origin)) / max(norm, 1e-9)
    return _surface(keyed, turned, height, width) * np.float32(math.sqrt(2))


def _middle(values: Floats, side_px: int) -> Floats:
    height, width = values.shape
    top, left = max(0, (height - side_px) // 2), max(0, (width - side_px) // 2)
    return values[top : top + side_px, left : left + side_px]


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
    for number, orientation in enumerate(ORIENTATIONS):
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
        exact_N = frequencies_N2[:, axis] * size + size // 2
        whole_N = np.floor(exact_N)
        index_N6 = whole_N.astype(np.int64)[:, None] + _TAPS
        places.append((np.clip(index_N6, 0, size - 1), _sinc_weights(exact_N - whole_N)))
    (rows_N6, row_weights), (columns_N6, column_weights) = places
    block = whole.centred.reshape(-1).take((rows_N6 * whole.width)[:, :, None] + columns_N6[:, None, :])
    across = np.einsum("nij,nj->ni", block, column_weights)
    return np.asarray(np.einsum("ni,ni->n", across, row_weights), np.complex128)


def _sinc_weights(past_N: NDArray[np.float64]) -> Floats:
    """(N, 6) sinc of the distances from `past_N`, in [0, 1), to `_TAPS`: one sine serves all six, in turn of sign."""
    # what lies on a sample is moved by less than the rounding of what it is multiplied with
    past_N = np.maximum(past_N, 1e-12)
    sine_N = (np.sin(np.pi * past_N) / np.pi).astype(np.float32)
    return np.asarray(sine_N[:, None] * _ALTERNATING / (past_N[:, None] - _TAPS).astype(np.float32), np.float32)


def _line_values(whole: Spectrum, keyed: Patterns, pose: Pose) -> NDArray[np.complex128]:
    """(K,) what the picture holds at the sinusoids, their own phases taken off."""
    frequencies = pose.carried(keyed.lines.frequencies_K2 / PERIOD_PX)
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
    agreeing, uncropped = np.array([column, row], float) * PITCH_PX, (extent(whole, pose) - 1) / 2
    yield _aligned(whole, keyed, pose, agreeing)
    apart = np.abs((agreeing - uncropped + PERIOD_PX / 2) % PERIOD_PX - PERIOD_PX / 2).max()
    if apart > 2 * PITCH_PX:
        yield _aligned(whole, keyed, pose, uncropped)


def _surface(
    keyed: Patterns, values_K: NDArray[np.complex128], height: int = PERIOD_CELLS, width: int = PERIOD_CELLS
) -> Floats:
    """(height, width): how well the sinusoids agree with each place, in steps of a cell."""
    across_KC, down_KR = keyed.lines.waves(0)[:, :width], keyed.lines.waves(1)[:, :height]
    turned_KR = values_K.astype(np.complex64)[:, None] * down_KR
    # the real part of a product, as one product of real matrices
    upright = np.concatenate([turned_KR.real, -turned_KR.imag])
    return np.asarray(upright.T @ np.concatenate([across_KC.real, across_KC.imag]))


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
    steps_7 = np.arange(-3, 4) * step
    scales_N = np.repeat(np.clip(pose.scale * np.exp(steps_7), *SCALES), 7)
    rotations_N = np.tile(pose.rotation + steps_7, 7)
    lines_K2 = keyed.lines.frequencies_K2 / PERIOD_PX
    frequencies_NK2 = carried(lines_K2, scales_N, rotations_N, pose.orientation)
    values_NK = _values_at(whole, frequencies_NK2.reshape(-1, 2)).reshape(scales_N.size, -1)
    if centre is None:
        score_N = np.minimum(np.abs(values_NK) ** 2, 16.0).mean(axis=1)
    else:
        expected_K = np.exp(-1j * (keyed.lines.phases_K + 2 * np.pi * (lines_K2 @ centre)))
        score_N = (values_NK * expected_K).real.mean(axis=1)
    best = int(score_N.argmax())
    return Pose(float(scales_N[best]), float(rotations_N[best]), pose.orientation)


def _read(
    whole: Spectrum,
    keyed: Patterns,
    pose: Pose,
    centre: NDArray[np.float64],
    trials: int,
    nonces: int = NONCES,
) -> list[Found]:
    """What the cells of a registered picture say: the likeliest nonces, each tested and decoded."""
    viewed = cell_values(whole, pose, centre)
    agreement = _sheet_agreement(*viewed, keyed.sheet_spectrum)
    return [_decoded(keyed, pose, nonce, viewed, trials) for nonce in _highest(agreement, nonces)]


def _z(values_RC: Floats, signs_RC: Floats, slots_RC: NDArray[np.int16]) -> float:
    """The correlation with the known signs, in standard deviations of what random signs would give."""
    known = slots_RC == PILOT
    values = values_RC[known]
    energy = float(np.vdot(values, values))
    return float(np.vdot(values, signs_RC[known])) / math.sqrt(energy) if energy > 0 else 0.0


def _by_sheet(whole: Spectrum, keyed: Patterns, pose: Pose) -> Iterator[list[Found]]:
    """Looks at the pairs of nonce and place that sheet and sinusoids propose together; the best are read in full."""
    pairs = _proposed(whole, keyed, pose)
    looks = [(_z(pair.values_RC, *keyed.mark_layer(pair.nonce, pair.rows, pair.columns)), pair) for pair in pairs]
    best = sorted(looks, key=lambda look: -look[0])[:_CLOSER]
    yield [Found(p_value(z, TRIALS[2]), None, None, pose.scale, math.degrees(pose.rotation), False) for z, _ in best]
    for z, pair in best:
        if z > _PROMISING:
            yield [_read_closely(whole, keyed, pose, pair)]


@dataclass(frozen=True)
class _Pair:
    """A nonce and a place: how well sheet and sinusoids like them, and the cells as they lie there."""

    liked: float
    nonce: int
    centre: NDArray[np.float64]
    values_RC: Floats
    rows: slice
    columns: slice


def _proposed(whole: Spectrum, keyed: Patterns, pose: Pose) -> list[_Pair]:
    """`_PAIRS` of nonce and place. Where the sheet answers, it tells the sum of nonce and displacement, in cells."""
    uncropped = (extent(whole, pose) - 1) / 2
    found: dict[tuple[int, int, int], _Pair] = {}
    for phase in _PHASES:
        origin = uncropped + phase
        values_RC, rows, columns = cell_values(whole, pose, origin)
        agreement = _sheet_agreement(values_RC, rows, columns, keyed.sheet_spectrum)
        totals_N = np.array(_highest(agreement, _SHEET_TOTALS))
        sheet_N = agreement.reshape(-1)[totals_N] / max(_deviation(agreement), 1e-9)
        places = _places(whole, keyed, pose, origin, rows.stop - rows.start + 2, columns.stop - columns.start + 2)
        liked_NP = sheet_N[:, None] + places.reshape(1, -1)
        for number in _highest(liked_NP, _PAIRS):
            of_total, place = divmod(number, places.size)
            total, (down, right) = int(totals_N[of_total]), divmod(place, places.shape[1])
            liked = float(liked_NP[of_total, place])
            if (total, down, right) in found and found[total, down, right].liked >= liked:
                continue
            nonce = (total // PERIOD_CELLS - down) % PERIOD_CELLS * PERIOD_CELLS + (total - right) % PERIOD_CELLS
            moved = (slice(start.start + by, start.stop + by) for start, by in ((rows, down), (columns, right)))
            centre = origin + np.array([right, down]) * PITCH_PX
            found[total, down, right] = _Pair(liked, nonce, centre, values_RC, *moved)
    return sorted(found.values(), key=lambda pair: -pair.liked)[:_PAIRS]


def _read_closely(whole: Spectrum, keyed: Patterns, pose: Pose, pair: _Pair) -> Found:
    """A pair, registered, from places a part of a cell apart: what the best of them says."""
    registered, centre = _aligned(whole, keyed, pose, pair.centre)
    best = -math.inf, pair.values_RC, pair.rows, pair.columns
    for down in _CLOSE_PX:
        for right in _CLOSE_PX:
            viewed = cell_values(whole, registered, centre + np.array([right, down]))
            z = _z(viewed[0], *keyed.mark_layer(pair.nonce, *viewed[1:]))
            best = max(best, (z, *viewed), key=lambda look: look[0])
    return _decoded(keyed, registered, pair.nonce, best[1:], TRIALS[2])


def _decoded(keyed: Patterns, pose: Pose, nonce: int, viewed: tuple[Floats, slice, slice], trials: int) -> Found:
    """What these cells say of `nonce`: the p-value, and the payload where that is worth the work."""
    values_RC, rows, columns = viewed
    signs_RC, slots_RC = keyed.mark_layer(nonce, rows, columns)
    p = p_value(_z(values_RC, signs_RC, slots_RC), trials)
    payload, sure = None, False
    if p < _WORTH_DECODING:
        product_RC = values_RC * signs_RC
        sums = np.bincount(slots_RC.reshape(-1), product_RC.reshape(-1), minlength=CODED_BITS + 1)
        read, place = decode(sums[:CODED_BITS].astype(np.float64), keyed.check_key)
        payload, sure = None if place is None else read, place == 0
    mirrored = pose.orientation % 4 in (1, 3)
    return Found(p, payload, nonce, pose.scale, math.degrees(pose.rotation), mirrored, sure)


def p_value(z: float, trials: int) -> float:
    """The probability that the best of `trials` standard normal values reaches `z`."""
    single = 0.5 * math.erfc(z / math.sqrt(2))
    return -math.expm1(trials * math.log1p(-single)) if single < 1 else 1.0


def _sheet_agreement(
    values_RC: Floats, rows: slice, columns: slice, sheet_spectrum_CR: NDArray[np.complex64]
) -> Floats:
    """(PERIOD_CELLS, PERIOD_CELLS): how well the displaced sheet agrees with the cells, for every displacement.

    These are the sums of products, divided by `PERIOD_CELLS`.
    """
    period = PERIOD_CELLS
    at_R, at_C = np.arange(rows.start, rows.stop), np.arange(columns.start, columns.stop)
    used = min(period, len(at_R))
    folded = np.zeros((used, period), np.float32)
    for top in range(0, len(at_R), period):
        for left in range(0, len(at_C), period):
            part = values_RC[top : top + period, left : left + period]
            folded[: len(part), at_C[left : left + period] % period] += part
    # the inverse of what is conjugated is the forward transform, conjugated, and several times faster in numpy
    turned_CR = np.conj(np.fft.rfft(folded, axis=1).T)
    # most rows are empty; and a few columns at a time stay in the processor's cache, from which a whole plane drops out
    product = np.empty((period, period // 2 + 1), np.complex64)
    buffer = np.empty((_BLOCK_COLUMNS, period), np.complex64)
    for left in range(0, period // 2 + 1, _BLOCK_COLUMNS):
        block = slice(left, left + _BLOCK_COLUMNS)
        buffer[:] = 0
        buffer[:, at_R[:used] % period] = turned_CR[block]
        # numpy's stubs know `out` in double precision alone
        np.fft.ifft(buffer, axis=1, out=buffer)  # type: ignore[arg-type]
        buffer *= sheet_spectrum_CR[block]
        np.fft.ifft(buffer, axis=1, out=buffer)  # type: ignore[arg-type]
        product[:, block] = buffer.T
    return np.asarray(np.fft.irfft(product, period, axis=1), np.float32)


def _deviation(values: Floats) -> float:
    """The standard deviation, without a second plane of values."""
    return math.sqrt(max(float(np.vdot(values, values)) / values.size - float(values.mean()) ** 2, 0.0))


def _highest(values: Floats, count: int) -> list[int]:
    """The flat places of the `count` highest values of a plane, the highest first."""
    count = min(count, values.size)
    rows = np.arange(len(values))
    if count < len(rows):
        # no other row can hold one of them
        rows = np.argpartition(values.max(axis=1), -count)[-count:]
    flat = values[rows].reshape(-1)
    best = np.argpartition(flat, -count)[-count:]
    row, column = np.divmod(best[np.argsort(-flat[best])], values.shape[1])
    return [int(place) for place in rows[row] * values.shape[1] + column]
