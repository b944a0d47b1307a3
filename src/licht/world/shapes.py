"""Analytic solids: where a ray enters them, their signed distance and their normals.

All functions work in the solid's own frame on tensors that broadcast against each other; rays are o + t d with d of any
length. Only additions, products, quotients, roots, comparisons and choices are used, each its own kernel: these are
exactly rounded on every device, so that a CPU and a GPU take the same decisions.

Legend: N rows of rays, S rays in a row. Parameters are (N, 1), rays (N, S).
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from licht.world.parts import BOX, CAPSULE, CONE, CYLINDER, SPHERE, TORUS

Vec = tuple[Tensor, Tensor, Tensor]

FAR: Final = 1e9
"""Depth of a ray that hits nothing."""
_TINY: Final = 1e-12
_TORUS_STEPS: Final = 22
_TORUS_EPSILON: Final = 2e-3
BEVEL: Final = 0.07
"""Share of a box's or cylinder's smaller half extent over which its edges are shaded as if rounded."""


def dot(a: Vec, b: Vec) -> Tensor:
    """Inner product, summed in a fixed order."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _away_from_zero(x: Tensor) -> Tensor:
    return torch.where(x.abs() < _TINY, torch.full_like(x, _TINY), x)


def _finish(enter: Tensor, leave: Tensor) -> Tensor:
    """Entry depth where the interval is real and ahead of the ray's start, else FAR."""
    hit = (enter < leave) & (enter > 0.0)
    return torch.where(hit, enter, torch.full_like(enter, FAR))


def _sphere_at(o: Vec, d: Vec, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Interval inside a sphere, through the point of closest approach, which keeps float32 accurate from afar."""
    inverse = 1.0 / dot(d, d)
    middle = -(dot(o, d) * inverse)
    near = (o[0] + middle * d[0], o[1] + middle * d[1], o[2] + middle * d[2])
    room = radius * radius - dot(near, near)
    half = (room.clamp(min=0.0) * inverse).sqrt()
    return torch.where(room > 0.0, middle - half, torch.full_like(half, FAR)), middle + half


def enter_sphere(o: Vec, d: Vec, dims: Vec) -> Tensor:
    """Depth at which rays enter a sphere."""
    enter, leave = _sphere_at(o, d, dims[0])
    return _finish(enter, leave)


def _slab(o: Tensor, d: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    inverse = 1.0 / _away_from_zero(d)
    middle, width = -(inverse * o), inverse.abs() * half
    return middle - width, middle + width


def enter_box(o: Vec, d: Vec, dims: Vec) -> Tensor:
    """Depth at which rays enter a box."""
    x0, x1 = _slab(o[0], d[0], dims[0])
    y0, y1 = _slab(o[1], d[1], dims[1])
    z0, z1 = _slab(o[2], d[2], dims[2])
    return _finish(torch.maximum(torch.maximum(x0, y0), z0), torch.minimum(torch.minimum(x1, y1), z1))


def _tube(o: Vec, d: Vec, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Interval inside an endless cylinder around y."""
    inverse = 1.0 / (d[0] * d[0] + d[2] * d[2] + _TINY)
    middle = -((o[0] * d[0] + o[2] * d[2]) * inverse)
    x, z = o[0] + middle * d[0], o[2] + middle * d[2]
    room = radius * radius - (x * x + z * z)
    half = (room.clamp(min=0.0) * inverse).sqrt()
    return torch.where(room > 0.0, middle - half, torch.full_like(half, FAR)), middle + half


def enter_cylinder(o: Vec, d: Vec, dims: Vec) -> Tensor:
    """Depth at which rays enter a capped cylinder."""
    t0, t1 = _tube(o, d, dims[0])
    y0, y1 = _slab(o[1], d[1], dims[1])
    return _finish(torch.maximum(t0, y0), torch.minimum(t1, y1))


def enter_cone(o: Vec, d: Vec, dims: Vec) -> Tensor:
    """Depth at which rays enter a cone with its tip at +y and a flat base.

    The double cone x^2 + z^2 = k^2 (half - y)^2 meets the ray in a bounded interval, or (steep rays) in two half lines
    of which the lower cone holds the one that goes down.
    """
    slope = dims[0] / (dims[1] + dims[1])
    slope_sq = slope * slope
    oy, dy = dims[1] - o[1], -d[1]
    a = _away_from_zero(d[0] * d[0] + d[2] * d[2] - slope_sq * dy * dy)
    inverse = 1.0 / a
    middle = -((o[0] * d[0] + o[2] * d[2] - slope_sq * oy * dy) * inverse)
    x, y, z = o[0] + middle * d[0], oy + middle * dy, o[2] + middle * d[2]
    room = (slope_sq * y * y - (x * x + z * z)) * inverse
    half = room.clamp(min=0.0).sqrt()
    low, high = middle - half, middle + half
    flat, down = a > 0.0, dy > 0.0
    far = torch.full_like(low, FAR)
    enter = torch.where(flat, torch.where(room > 0.0, low, far), torch.where(down, high, -far))
    leave = torch.where(flat, high, torch.where(down, far, low))
    y0, y1 = _slab(o[1], d[1], dims[1])
    return _finish(torch.maximum(enter, y0), torch.minimum(leave, y1))


def enter_capsule(o: Vec, d: Vec, dims: Vec) -> Tensor:
    """Depth at which rays enter an upright capsule: its tube, else the ball at the end where the tube was met."""
    t0, t1 = _tube(o, d, dims[0])
    y = o[1] + t0 * d[1]
    end = torch.where(y > 0.0, dims[1], -dims[1])
    b0, b1 = _sphere_at((o[0], o[1] - end, o[2]), d, dims[0])
    on_tube = (y.abs() < dims[1]) & (t0 < t1)
    return torch.where(on_tube & (t0 > 0.0), t0, _finish(b0, b1))


def enter_torus(o: Vec, d: Vec, dims: Vec) -> Tensor:
    """Depth at which rays enter a torus around z, by a fixed number of steps of its signed distance."""
    outer = dims[0] + dims[1]
    start, stop = _sphere_at(o, d, outer)
    z0, z1 = _slab(o[2], d[2], dims[1])
    start, stop = torch.maximum(torch.maximum(start, z0), torch.zeros_like(z0)), torch.minimum(stop, z1)
    length = dot(d, d).sqrt()
    inverse = 1.0 / length
    t = torch.where(start < stop, start, torch.full_like(start, FAR))
    distance = t
    for _ in range(_TORUS_STEPS):
        p = (o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2])
        distance = distance_torus(p, dims)
        t = t + distance * inverse
    hit = (distance < _TORUS_EPSILON) & (t < stop + 0.01) & (start < stop) & (t > 0.0)
    return torch.where(hit, t, torch.full_like(t, FAR))


# Signed distances -----------------------------------------------------------------------------------------------------


def distance_sphere(p: Vec, dims: Vec) -> Tensor:
    """Signed distance to a sphere."""
    return dot(p, p).sqrt() - dims[0]


def _corner(qx: Tensor, qy: Tensor) -> Tensor:
    """Signed distance to the quadrant x < 0, y < 0."""
    outside_x, outside_y = qx.clamp(min=0.0), qy.clamp(min=0.0)
    outside = (outside_x * outside_x + outside_y * outside_y).sqrt()
    return outside + torch.maximum(qx, qy).clamp(max=0.0)


def distance_box(p: Vec, dims: Vec) -> Tensor:
    """Signed distance to a box."""
    q = (p[0].abs() - dims[0], p[1].abs() - dims[1], p[2].abs() - dims[2])
    x, y, z = q[0].clamp(min=0.0), q[1].clamp(min=0.0), q[2].clamp(min=0.0)
    inside = torch.maximum(torch.maximum(q[0], q[1]), q[2]).clamp(max=0.0)
    return (x * x + y * y + z * z).sqrt() + inside


def distance_cylinder(p: Vec, dims: Vec) -> Tensor:
    """Signed distance to a capped cylinder."""
    return _corner((p[0] * p[0] + p[2] * p[2]).sqrt() - dims[0], p[1].abs() - dims[1])


def distance_cone(p: Vec, dims: Vec) -> Tensor:
    """Signed distance to a cone inside and near its faces; a lower bound around its rim and tip."""
    height = dims[1] + dims[1]
    inverse = 1.0 / (height * height + dims[0] * dims[0]).sqrt()
    radius = (p[0] * p[0] + p[2] * p[2]).sqrt()
    side = (radius * height + (p[1] - dims[1]) * dims[0]) * inverse
    return torch.maximum(side, -dims[1] - p[1])


def distance_capsule(p: Vec, dims: Vec) -> Tensor:
    """Signed distance to an upright capsule."""
    y = (p[1].abs() - dims[1]).clamp(min=0.0)
    return (p[0] * p[0] + y * y + p[2] * p[2]).sqrt() - dims[0]


def distance_torus(p: Vec, dims: Vec) -> Tensor:
    """Signed distance to a torus around z."""
    ring = (p[0] * p[0] + p[1] * p[1]).sqrt() - dims[0]
    return (ring * ring + p[2] * p[2]).sqrt() - dims[1]


# Normals --------------------------------------------------------------------------------------------------------------


def _unit(x: Tensor, y: Tensor, z: Tensor) -> Vec:
    inverse = 1.0 / (x * x + y * y + z * z + _TINY).sqrt()
    return x * inverse, y * inverse, z * inverse


def _edge(depth: Tensor, bevel: Tensor) -> Tensor:
    """Weight of a face's normal: 1 on the face, fading over the bevel, just above 0 inside."""
    return (1.0 + depth / bevel).clamp(min=1e-3)


def _signed(value: Tensor, like: Tensor) -> Tensor:
    return torch.where(like < 0.0, -value, value)


def normal_sphere(p: Vec, dims: Vec) -> Vec:  # noqa: ARG001 - one signature for all
    """Normal of a sphere."""
    return _unit(*p)


def normal_box(p: Vec, dims: Vec) -> Vec:
    """Normal of a box; along its edges it turns over as on a small bevel."""
    bevel = BEVEL * torch.minimum(torch.minimum(dims[0], dims[1]), dims[2])
    weights = [_signed(_edge(a.abs() - half, bevel), a) for a, half in zip(p, dims, strict=True)]
    return _unit(weights[0], weights[1], weights[2])


def normal_cylinder(p: Vec, dims: Vec) -> Vec:
    """Normal of a capped cylinder; around its rims it turns over as on a small bevel."""
    bevel = BEVEL * torch.minimum(dims[0], dims[1])
    radius = (p[0] * p[0] + p[2] * p[2] + _TINY).sqrt()
    side = _edge(radius - dims[0], bevel) / radius
    return _unit(p[0] * side, _signed(_edge(p[1].abs() - dims[1], bevel), p[1]), p[2] * side)


def normal_cone(p: Vec, dims: Vec) -> Vec:
    """Normal of a cone: of its side, or of its base within a thousandth of it."""
    height = dims[1] + dims[1]
    radius = (p[0] * p[0] + p[2] * p[2] + _TINY).sqrt()
    base = p[1] + dims[1] < 1e-3
    zero = torch.zeros_like(radius)
    x, z = p[0] / radius * height, p[2] / radius * height
    return _unit(torch.where(base, zero, x), torch.where(base, zero - 1.0, zero + dims[0]), torch.where(base, zero, z))


def normal_capsule(p: Vec, dims: Vec) -> Vec:
    """Normal of an upright capsule."""
    return _unit(p[0], p[1] - torch.minimum(torch.maximum(p[1], -dims[1]), dims[1]), p[2])


def normal_torus(p: Vec, dims: Vec) -> Vec:
    """Normal of a torus around z."""
    ring = (p[0] * p[0] + p[1] * p[1] + _TINY).sqrt()
    share = 1.0 - dims[0] / ring
    return _unit(p[0] * share, p[1] * share, p[2])


Solid = Callable[[Vec, Vec, Vec], Tensor]
Distance = Callable[[Vec, Vec], Tensor]
Normal = Callable[[Vec, Vec], Vec]

ENTER: Final[dict[int, Solid]] = {
    SPHERE: enter_sphere,
    BOX: enter_box,
    CYLINDER: enter_cylinder,
    CONE: enter_cone,
    TORUS: enter_torus,
    CAPSULE: enter_capsule,
}
DISTANCE: Final[dict[int, Distance]] = {
    SPHERE: distance_sphere,
    BOX: distance_box,
    CYLINDER: distance_cylinder,
    CONE: distance_cone,
    TORUS: distance_torus,
    CAPSULE: distance_capsule,
}
NORMAL: Final[dict[int, Normal]] = {
    SPHERE: normal_sphere,
    BOX: normal_box,
    CYLINDER: normal_cylinder,
    CONE: normal_cone,
    TORUS: normal_torus,
    CAPSULE: normal_capsule,
}
