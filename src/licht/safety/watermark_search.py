"""Finding the watermark blindly: register by the sinusoids, read the nonce, then test what only the key can know.

The search for scale, rotation, orientation, position and nonce looks at the two layers that prove nothing. The p-value
comes from the known signs of the third layer alone. These are independent of the other two and of the picture, so for
each candidate, under the hypothesis "not this key", their normalised correlation is a sum of random signs times fixed
weights: nearly standard normal whatever the picture holds. A look at z then counts as p = 1 - (1 - Q(z))^T. Half of the chance of
a false alarm is given to the first few looks, at the picture as it is, so T is smaller there (a weighted Bonferroni
correction: the 1/T of all looks add up to 1).

Legend: H, W pixels; R, C cells; K sinusoids; N candidates.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from licht.core.request import Picture
from licht.safety.watermark_code import CODED_BITS, decode
from licht.safety.watermark_pattern import PERIOD_CELLS, PERIOD_PX, PILOT, PITCH_PX, Floats, Patterns

SCALES: Final = (0.45, 2.2)
ROTATION_DEG: Final = 4.0
POSES: Final = 4
"""Candidates for scale, rotation and orientation that are followed to the end, beside the two that always are."""
PLACES: Final = 5
"""Positions tried for a pose: where the sinusoids agree best, and that of a picture that was not cropped."""
NONCES: Final = 2
TRIALS: Final = (POSES * 2 + 2) * PLACES * NONCES
"""How often the p-value's signal is looked at, at most: poses (upright and upside down), places, nonces."""
_FIRST_LOOKS: Final = PLACES * NONCES
_NOTABLE: Final = 3.5
"""Standard deviations above the mean of all poses that a pose must reach to be followed."""
_WINDOW_PX: Final = 1024
_ENOUGH: Final = 1e-14
_SMALL_PX: Final = 300_000

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
    whole = spectrum(luminance(picture))
    side_px = max(picture.width, picture.height)
    coarse = whole
    if side_px > _WINDOW_PX * 1.25:
        coarse = spectrum(_middle(luminance(picture), _WINDOW_PX))
    sheet_spectrum = np.fft.rfft2(keyed.sheet.astype(np.float32)).astype(np.complex64)
    best = Found(1.0, None, None, 1.0, 0.0, flipped=False)
    for number, pose in enumerate(_ways(whole, coarse, keyed)):
        trials = 2 * (_FIRST_LOOKS if number == 0 else TRIALS - _FIRST_LOOKS)
        for registered, centre in _registered(whole, keyed, pose):
            looked = _read(whole, keyed, sheet_spectrum, registered, centre, trials)
            best = min(best, *looked, key=lambda found: found.p)
            if best.p < _ENOUGH and best.payload is not None:
                return best
    return best


def _ways(whole: Spectrum, coarse: Spectrum, keyed: Patterns) -> Iterator[Pose]:
    """Every pose to follow, likeliest first; those that were found are sharpened before."""
    yield from _AS_IT_WAS
    for pose in _poses(coarse, keyed):
        for step_px in (2.0, 0.7):
            pose = _sharpened(whole, keyed, pose, None, step_px)  # noqa: PLW2901
        yield pose
        yield pose.upside_down()


def luminance(picture: Picture) -> Floats:
    """(H, W): the mean of red, green and blue, which is what the mark was added to."""
    pixels = np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3)
    return pixels.astype(np.float32) @ np.full(3, 1 / 3, np.float32)


def cells(image: Image.Image, height: int, width: int) -> Floats:
    """(R, C): the mean luminance of each cell; cells at the edge may be cut."""
    small = image.reduce(PITCH_PX).convert("L")
    return np.asarray(small, np.float32)[:height, :width]


def high_passed(values: Floats) -> Floats:
    """`values` minus their blur with (1 4 6 4 1)/16, twice in both directions, edges mirrored."""
    return values - _binomial(_binomial(_binomial(_binomial(values)).T).T)


def blurred(values: Floats, radius: int) -> Floats:
    """The mean over squares of 2 `radius` + 1, edges mirrored."""
    return _box(_box(values, radius).T, radius).T


def _binomial(values: Floats) -> Floats:
    padded = np.pad(values, ((0, 0), (2, 2)), mode="reflect")
    outer, inner = padded[:, :-4] + padded[:, 4:], padded[:, 1:-3] + padded[:, 3:-1]
    return np.asarray((outer + 4 * inner + 6 * values) / 16, np.float32)


def _box(values: Floats, radius: int) -> Floats:
    radius = min(radius, values.shape[1] - 1)
    padded = np.pad(values, ((0, 0), (radius + 1, radius)), mode="symmetric")
    total = np.cumsum(padded, axis=1, dtype=np.float64)
    span = 2 * radius + 1
    return ((total[:, span:] - total[:, :-span]) / span).astype(np.float32)


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


def _poses(coarse: Spectrum, keyed: Patterns) -> list[Pose]:
    """The most likely poses, best first: where the sinusoids' places hold more power than noise does."""
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
        notable = float(scores.mean() + _NOTABLE * scores.std())
        for _ in range(POSES):
            s, t = np.unravel_index(int(scores.argmax()), scores.shape)
            if scores[s, t] < notable:
                break
            found.append((float(scores[s, t]), Pose(float(scales[s]), float(turns[t]), number)))
            scores[max(0, s - 3) : s + 4, max(0, t - 3) : t + 4] = -np.inf
    ranked = [pose for _, pose in sorted(found, key=lambda entry: -entry[0])]
    return ranked[:POSES]


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

    Several places are offered: where the sinusoids agree best, and where the centre lies in a picture that was not
    cropped. A large picture needs no second choice.
    """
    values_K = _line_values(whole, keyed, pose)
    turns = -2j * np.pi / PERIOD_CELLS * np.arange(PERIOD_CELLS)
    x_KC = np.exp(keyed.lines.frequencies_K2[:, :1] * turns).astype(np.complex64)
    y_RK = (np.exp(turns[:, None] * keyed.lines.frequencies_K2[:, 1]) * values_K).astype(np.complex64)
    surface = y_RK.real @ x_KC.real - y_RK.imag @ x_KC.imag
    extent = np.abs(np.linalg.inv(Pose(pose.scale, 0.0, pose.orientation).matrix())) @ [whole.width, whole.height]
    uncropped = (extent - 1) / 2
    tried = []
    peaks = PLACES - 1 if extent[0] * extent[1] < _SMALL_PX else 1
    for _ in range(peaks):
        row, column = np.unravel_index(int(surface.argmax()), surface.shape)
        near = (np.arange(row - 2, row + 3) % PERIOD_CELLS)[:, None], np.arange(column - 2, column + 3) % PERIOD_CELLS
        surface[near] = -np.inf
        tried.append(np.array([column, row], float) * PITCH_PX)
        yield _aligned(whole, keyed, pose, tried[-1])
    apart = [np.abs((place - uncropped + PERIOD_PX / 2) % PERIOD_PX - PERIOD_PX / 2).max() for place in tried]
    if min(apart) > 2 * PITCH_PX:
        yield _aligned(whole, keyed, pose, uncropped)


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
        Pose(pose.scale * math.exp(a * step), pose.rotation + b * step, pose.orientation)
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
    sheet_spectrum: NDArray[np.complex64],
    pose: Pose,
    centre: NDArray[np.float64],
    trials: int,
) -> list[Found]:
    """What the cells of a registered picture say: the likeliest nonces, each tested and decoded."""
    values_RC, rows, columns = cell_values(whole, pose, centre)
    found = []
    for nonce in _nonces(values_RC, rows, columns, sheet_spectrum):
        signs_RC, slots_RC = keyed.mark_layer(nonce, rows, columns)
        product_RC = values_RC * signs_RC
        known = slots_RC == PILOT
        energy = float(np.square(values_RC[known]).sum())
        z = float(product_RC[known].sum()) / math.sqrt(energy) if energy > 0 else 0.0
        p = p_value(z, trials)
        payload = None
        if p < _WORTH_DECODING:
            soft = np.bincount(slots_RC.reshape(-1), product_RC.reshape(-1), minlength=CODED_BITS + 1)[
                :CODED_BITS
            ].astype(np.float64)
            read, _, sound = decode(soft, keyed.check_key)
            payload = read if sound else None
        mirrored = pose.orientation % 4 in (1, 3)
        found.append(Found(p, payload, nonce, pose.scale, math.degrees(pose.rotation), mirrored))
    return found


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
    values_RC = high_passed(_sampled(upright, y_RC.astype(np.float32), x_RC.astype(np.float32)))
    values_RC /= np.sqrt(blurred(values_RC * values_RC, 5)) + 1e-3 * values_RC.std() + 1e-12
    return np.asarray(np.clip(values_RC, -3, 3), np.float32), rows, columns


def _at_scale_one(whole: Spectrum, scale: float) -> tuple[Floats, int, int]:
    """The picture at the marked size, weighted by one over its noise and filtered like the mark's pulses."""
    height, width = _smooth_size(whole.height / scale), _smooth_size(whole.width / scale)
    rows, columns = min(height, whole.height), min(width // 2, whole.width // 2) + 1
    down = np.fft.fftfreq(whole.height)[:, None] * whole.height
    across = np.arange(columns)[None, :]
    kept = whole.white[:, :columns] * whole.weight[:, :columns]
    kept = kept * _pulse(down / height).astype(np.float32) * _pulse(across / width).astype(np.float32)
    half = (rows - 1) // 2
    resized = np.zeros((height, width // 2 + 1), np.complex64)
    resized[: half + 1, :columns] = kept[: half + 1]
    if half:
        resized[-half:, :columns] = kept[-half:]
    return np.asarray(np.fft.irfft2(resized, (height, width)), np.float32), height, width


def _pulse(frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
    """The response of Pillow's bicubic enlargement (a = -1/2) by the pitch, by summing its kernel."""
    taps = np.arange(-2 * PITCH_PX, 2 * PITCH_PX + 1)
    x = np.abs(taps) / PITCH_PX
    kernel = np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2)
    response = kernel @ np.cos(2 * np.pi * taps[:, None] * frequencies.reshape(1, -1)) / PITCH_PX
    return np.where(np.abs(frequencies) <= 0.5, response.reshape(frequencies.shape), 0.0)


def _smooth_size(size: float) -> int:
    """The next whole number with no prime factor above 5: fast to transform."""
    candidate = max(8, math.ceil(size))
    while True:
        rest = candidate
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return candidate
        candidate += 1


def _sampled(values: Floats, y_RC: Floats, x_RC: Floats) -> Floats:
    """Linear interpolation; 0 outside."""
    height, width = values.shape
    inside = (y_RC >= 0) & (x_RC >= 0) & (y_RC <= height - 1) & (x_RC <= width - 1)
    y_RC, x_RC = np.clip(y_RC, 0, height - 1.001), np.clip(x_RC, 0, width - 1.001)
    row, column = y_RC.astype(np.int32), x_RC.astype(np.int32)
    down, right = y_RC - row, x_RC - column
    index, flat = row * width + column, values.reshape(-1)
    above = flat[index] * (1 - right) + flat[index + 1] * right
    below = flat[index + width] * (1 - right) + flat[index + width + 1] * right
    return np.asarray(np.where(inside, above * (1 - down) + below * down, 0.0), np.float32)


def _nonces(values_RC: Floats, rows: slice, columns: slice, sheet_spectrum: NDArray[np.complex64]) -> list[int]:
    """The likeliest displacements of the sheet, best first."""
    period = PERIOD_CELLS
    folded = np.zeros((period, period), np.float32)
    at_R, at_C = np.arange(rows.start, rows.stop), np.arange(columns.start, columns.stop)
    for top in range(0, len(at_R), period):
        for left in range(0, len(at_C), period):
            part = values_RC[top : top + period, left : left + period]
            folded[(at_R[top : top + period] % period)[:, None], (at_C[left : left + period] % period)] += part
    agreement = np.fft.irfft2(np.conj(np.fft.rfft2(folded)) * sheet_spectrum, (period, period)).reshape(-1)
    best = np.argpartition(agreement, -NONCES)[-NONCES:]
    return [int(nonce) for nonce in best[np.argsort(-agreement[best])]]
