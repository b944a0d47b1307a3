"""A picture as the watermark's search sees it: whitened, and looked at from any pose.

Legend: H, W pixels; R, C cells; K frequencies.
"""

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from licht.core.request import Picture
from licht.safety.watermark_filters import blurred, high_passed, pulse, sampled, smooth_size
from licht.safety.watermark_pattern import PERIOD_PX, PITCH_PX, Floats

# the orientations of a square up to a half turn: as it was, mirrored, a quarter turn, and both
ORIENTATIONS: Final = (
    ((1.0, 0.0), (0.0, 1.0)),
    ((-1.0, 0.0), (0.0, 1.0)),
    ((0.0, -1.0), (1.0, 0.0)),
    ((0.0, 1.0), (1.0, 0.0)),
)
"""As matrices; the same upside down come after them."""
_CLIPPED: Final = 4.0
"""Standard deviations beyond which a cell counts no more."""
_OVERHANG: Final = 0.15


@dataclass(frozen=True, slots=True)
class Pose:
    """How marked pixels came to lie in the picture: turned or mirrored, rotated, scaled."""

    scale: float
    rotation: float
    orientation: int
    """0 to 7: the four of `ORIENTATIONS`, then the same upside down."""

    def matrix(self) -> NDArray[np.float64]:
        """(2, 2): from marked pixels to pixels of the picture."""
        cos, sin = math.cos(self.rotation), math.sin(self.rotation)
        turn = np.array([[cos, -sin], [sin, cos]])
        sign = 1.0 if self.orientation < 4 else -1.0
        return np.asarray(self.scale * sign * turn @ np.array(ORIENTATIONS[self.orientation % 4]))

    def carried(self, frequencies_K2: NDArray[np.float64]) -> NDArray[np.float64]:
        """(K, 2): what frequencies of the marked picture have become: through the inverse, transposed."""
        scale_1, rotation_1 = np.array([self.scale]), np.array([self.rotation])
        return np.asarray(carried(frequencies_K2, scale_1, rotation_1, self.orientation)[0])

    def upside_down(self) -> "Pose":
        """The same after a half turn."""
        return Pose(self.scale, self.rotation, (self.orientation + 4) % 8)


def carried(
    frequencies_K2: NDArray[np.float64],
    scales_N: NDArray[np.float64],
    rotations_N: NDArray[np.float64],
    orientation: int,
) -> NDArray[np.float64]:
    """(N, K, 2): what frequencies of the marked picture have become in poses of one orientation."""
    sign = 1.0 if orientation < 4 else -1.0
    x_K, y_K = (sign * frequencies_K2 @ np.array(ORIENTATIONS[orientation % 4]).T).T
    cos_N1, sin_N1 = ((turn / scales_N)[:, None] for turn in (np.cos(rotations_N), np.sin(rotations_N)))
    return np.stack([cos_N1 * x_K - sin_N1 * y_K, sin_N1 * x_K + cos_N1 * y_K], axis=-1)


@dataclass(frozen=True)
class Spectrum:
    """A picture's whitened spectrum, `rfft2` of (H, W), and the inverse of its noise density."""

    height: int
    width: int
    white: NDArray[np.complex64]
    weight: Floats
    centred: NDArray[np.complex64]
    """The whole plane of `white`, (H, W), with phases counted from the picture's centre."""
    _latest: dict[float, tuple[Floats, int, int]] = field(default_factory=dict, compare=False, repr=False)

    def at_scale_one(self, scale: float) -> tuple[Floats, int, int]:
        """The picture at the marked size, weighted and filtered; and that size. The latest scale is remembered."""
        if scale not in self._latest:
            self._latest.clear()
            self._latest[scale] = _at_scale_one(self, scale)
        return self._latest[scale]


def luminance(picture: Picture) -> Floats:
    """(H, W): the mean of red, green and blue, which is what the mark was added to."""
    pixels = np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3)
    return pixels.astype(np.float32) @ np.full(3, 1 / 3, np.float32)


def colour_differences(picture: Picture) -> tuple[Floats, ...]:
    """(H, W) red minus green and blue minus green, which the mark leaves alone; nothing for a grey picture."""
    pixels = np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3).astype(np.int16)
    green = pixels[:, :, 1]
    differences = pixels[:, :, 0] - green, pixels[:, :, 2] - green
    return tuple(one.astype(np.float32) for one in differences) if all(one.any() for one in differences) else ()


def spectrum(values: Floats, colours: tuple[Floats, ...] = ()) -> Spectrum:
    """Even out a picture's contrast in place and its power in frequency, so that the mark stands out of noise.

    Detail is divided by its local variance, which weights every place by how little the picture hides the mark there.
    What the `colours` tell of it is the picture's own, and is taken away.
    """
    height, width = values.shape
    detail = values - blurred(values, 8)
    variance = np.square(np.sqrt(blurred(detail * detail, 4)) + 2.0)
    detail /= variance
    if colours:
        first, second = (np.asarray((one - blurred(one, 8)) / variance, np.float32) for one in colours)
        detail -= _told_by(detail, first, second)
    raw = np.fft.rfft2(detail)
    power = np.asarray(raw.real**2 + raw.imag**2, np.float32)
    reach = max(2, min(height, width) // 64)
    density = np.pad(power, ((reach, reach), (reach, reach)), mode="wrap")
    density = blurred(density, reach)[reach:-reach, reach:-reach]
    # the floor: where compression has left nothing at all, there is no mark either, and nothing to amplify
    weight = 1 / np.sqrt(density + 0.6 * density.mean() + 1e-12)
    white = (raw * weight).astype(np.complex64)
    return Spectrum(height, width, white, weight.astype(np.float32), _centred(white, height, width))


def _told_by(detail: Floats, first: Floats, second: Floats) -> Floats:
    """(H, W): the part of `detail` that follows from two planes of colour, by least squares around each place.

    The fit is made of whole cells, where the mark is: what is coarser or finer does not count.
    """
    y, a, b = (_cell_details(plane) for plane in (detail, first, second))
    aa, bb, ab, ya, yb = (blurred(u * v, 5) for u, v in ((a, a), (b, b), (a, b), (y, a), (y, b)))
    # a little of the luminance's own power keeps the fit from following what colour hardly holds
    steady = 0.003 * blurred(y * y, 5) + 1e-12
    aa, bb = aa + steady, bb + steady
    determinant = aa * bb - ab * ab
    # two colours that tell the same cannot be told apart: nothing is taken away there
    determinant = np.where(determinant > 1e-6 * aa * bb, determinant, np.float32(np.inf))
    height, width = detail.shape
    parts = []
    for factor, plane in (((bb * ya - ab * yb) / determinant, first), ((aa * yb - ab * ya) / determinant, second)):
        spread = np.repeat(np.repeat(factor, PITCH_PX, 0), PITCH_PX, 1)
        missing = (0, max(0, height - spread.shape[0])), (0, max(0, width - spread.shape[1]))
        parts.append(np.pad(spread, missing, mode="edge")[:height, :width] * plane)
    return np.asarray(parts[0] + parts[1], np.float32)


def _cell_details(plane: Floats) -> Floats:
    """(R, C): the means of whole cells, minus those around them."""
    height, width = (side // PITCH_PX for side in plane.shape)
    means = plane[: height * PITCH_PX, : width * PITCH_PX].reshape(height, PITCH_PX, width, PITCH_PX).mean((1, 3))
    return np.asarray(means - blurred(means, 1), np.float32)


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


def extent(whole: Spectrum, pose: Pose) -> NDArray[np.float64]:
    """(2,) width and height of the picture in marked pixels, its rotation apart."""
    upright = Pose(pose.scale, 0.0, pose.orientation).matrix()
    return np.asarray(np.abs(np.linalg.inv(upright)) @ [whole.width, whole.height])


def cell_values(whole: Spectrum, pose: Pose, centre: NDArray[np.float64]) -> tuple[Floats, slice, slice]:
    """(R, C) filtered values at the cells that the picture covers, and which cells these are."""
    upright, height, width = whole.at_scale_one(pose.scale)
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
    # half way to an even power: quiet places are worth more, but none may decide alone
    values_RC /= np.sqrt(np.sqrt(blurred(values_RC * values_RC, 2)) + 1e-3 * values_RC.std() + 1e-12)
    limit = _CLIPPED * values_RC.std()
    return np.asarray(np.clip(values_RC, -limit, limit), np.float32), rows, columns


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
