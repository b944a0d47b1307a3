"""The pinhole camera of a scene: where it stands and where a point of the world lands in the picture.

Picture coordinates (u, v) are measured from the middle in halves of the shorter side, u to the right, v upwards.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from licht.world.parts import Point
from licht.world.scene import Camera
from licht.world.vocabulary import CAMERA_PITCH_DEG, DISTANCE_FACTOR

TAN_HALF_VIEW: Final = 0.3125
"""Tangent of half the angle that the shorter side sees."""
TARGET_Y: Final = 0.45
_NEAREST: Final = 0.3


@dataclass(frozen=True, slots=True)
class View:
    """Camera position, unit vectors forward and up (right is always +x), and the lift of the picture."""

    position: Point
    forward: Point
    up: Point
    lift: float
    distance: float

    def depth(self, point: Point) -> float:
        """Distance of a point along the viewing direction."""
        rel = [a - b for a, b in zip(point, self.position, strict=True)]
        return sum(a * b for a, b in zip(rel, self.forward, strict=True))

    def project(self, point: Point) -> tuple[float, float]:
        """(u, v) of a point; points behind the camera are treated as just in front of it."""
        x, y, z = (a - b for a, b in zip(point, self.position, strict=True))
        depth = max(_NEAREST, y * self.forward[1] + z * self.forward[2])
        scale = 1.0 / (depth * TAN_HALF_VIEW)
        return x * scale, (y * self.up[1] + z * self.up[2]) * scale + self.lift

    def project_all(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(K, 2) picture coordinates of (K, 3) points."""
        rel = points - self.position
        scale = 1.0 / (TAN_HALF_VIEW * np.maximum(rel[:, 1] * self.forward[1] + rel[:, 2] * self.forward[2], _NEAREST))
        return np.stack([rel[:, 0] * scale, (rel[:, 1] * self.up[1] + rel[:, 2] * self.up[2]) * scale + self.lift], 1)


def view_of(camera: Camera) -> View:
    """Where the camera stands. It looks at the middle of the scene from its height's pitch."""
    pitch = math.radians(CAMERA_PITCH_DEG[camera.height])
    distance = camera.extent * DISTANCE_FACTOR[camera.distance] / TAN_HALF_VIEW
    sine, cosine = math.sin(pitch), math.cos(pitch)
    return View(
        (0.0, TARGET_Y + distance * sine, distance * cosine),
        (0.0, -sine, -cosine),
        (0.0, cosine, -sine),
        camera.lift,
        distance,
    )
