"""Maps of scenes: how far, whose pixel, which edges; and pictures of them, as references to follow.

Legend: B scenes, H rows, W columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from licht.world import pack as k
from licht.world.camera import view_of
from licht.world.lettering import overlay_mask
from licht.world.parts import BOX, CONE, CYLINDER, SIGN_OWNER
from licht.world.render import camera_rays, check_size, chunks
from licht.world.scene import Scene
from licht.world.shapes import FAR, Vec
from licht.world.surface import points_of
from licht.world.trace import Hits, Rays, Tables, group, trace

NOTHING: Final = -1
"""Instance of the floor and the wall."""
LETTERING: Final = 101
"""Instance of text over the scene; a sign is `parts.SIGN_OWNER`."""
_FACES: Final = 8


@dataclass(frozen=True)
class Maps:
    """What is seen through the middle of every pixel.

    depth_BHW: float32 distance along the view in world units (FAR where there is only the wall).
    instance_BHW: int32 index of the subject, SIGN_OWNER, LETTERING or NOTHING.
    face_BHW: int32, equal within one face of one solid; -1 on the floor.
    """

    depth_BHW: Tensor
    instance_BHW: Tensor
    face_BHW: Tensor


def _floor_depth(rays: Rays) -> Tensor:
    d, o = rays.direction, rays.origin
    down = d[1] < -1e-4
    t = -o[1] / torch.where(down, d[1], -torch.ones_like(d[1]))
    return torch.where(down & (t < 60.0), t, torch.full_like(d[1], FAR))


def _faces(hits: Hits, rays: Rays, tables: Tables) -> Tensor:
    """Part * 8 + face: the side that a box's normal points to most, or lid, or bottom, or side of a round solid."""
    faces = torch.where(hits.part_NS >= 0, hits.part_NS * _FACES, hits.part_NS)
    blocks = group(hits, tables.packed.camera_pairs, tables)
    if len(blocks.part_K) == 0:
        return faces
    points = points_of(blocks, rays, hits, 1e-3, tables)
    kind = tables.indices(tables.packed.kind[blocks.part_K])[:, None]
    flat = (kind == CYLINDER) | (kind == CONE)
    x, y, z = points.normal
    lid = torch.where(y > 0.7, 1, 0) + torch.where(y < -0.7, 2, 0)
    local = _box_face(points.normal, blocks.part_index_K, tables)
    face = torch.where(kind == BOX, local, torch.where(flat & (x * x + z * z < 0.4), lid, torch.zeros_like(lid)))
    flat_faces = faces.view(-1)
    at = blocks.position_KM.flatten()
    flat_faces[at] = flat_faces[at] + face.flatten().to(torch.int32)
    return faces


def _box_face(normal: Vec, part_K: Tensor, tables: Tables) -> Tensor:
    part = tables.parts_PC.index_select(0, part_K)
    cosine, sine = part[:, k.COSINE, None], part[:, k.SINE, None]
    x, y, z = cosine * normal[0] - sine * normal[2], normal[1], sine * normal[0] + cosine * normal[2]
    axis = torch.where((y.abs() >= x.abs()) & (y.abs() >= z.abs()), 1, torch.where(x.abs() > z.abs(), 0, 2))
    value = torch.where(axis == 0, x, torch.where(axis == 1, y, z))
    return axis * 2 + (value > 0).long()


def _pictures(rows_RS: Tensor, packed: k.Packed) -> Tensor:
    """Tiles with one sample a pixel as pictures (B, H, W)."""
    side = k.TILE_PX
    tiled = rows_RS.view(-1, packed.height_px // side, packed.columns, side, side)
    return tiled.permute(0, 1, 3, 2, 4).reshape(-1, packed.height_px, packed.width_px)


def render_maps(scenes: Sequence[Scene], width_px: int, height_px: int, *, device: str | torch.device = "cpu") -> Maps:
    """Depth, instances and faces of scenes. Raises `InvalidRequest` for a size that cannot be drawn."""
    check_size(width_px, height_px)
    target = torch.device(device)
    depth, instance, face = [], [], []
    with torch.inference_mode():
        for chunk in chunks(len(scenes), 4 * width_px * height_px, target):
            some = [scenes[index] for index in chunk]
            tables = Tables.of(k.pack(some, width_px, height_px), target)
            rays = camera_rays(tables, 1)
            hits = trace(rays, tables.packed.camera_pairs, tables)
            hit = hits.part_NS >= 0
            owner = (
                tables.indices(tables.packed.owner)
                if len(tables.packed.owner)
                else torch.zeros(1, device=target).long()
            )
            owner_RS = torch.where(hit, owner[hits.part_NS.clamp(min=0).long()].to(torch.int32), NOTHING)
            depth.append(_pictures(torch.where(hit, hits.depth_NS, _floor_depth(rays)), tables.packed))
            face.append(_pictures(_faces(hits, rays, tables), tables.packed))
            instance.append(_with_lettering(_pictures(owner_RS, tables.packed), some, width_px, height_px))
    return Maps(torch.cat(depth), torch.cat(instance), torch.cat(face))


def _with_lettering(instance_BHW: Tensor, scenes: Sequence[Scene], width_px: int, height_px: int) -> Tensor:
    for index, scene in enumerate(scenes):
        if scene.lettering is not None and scene.lettering.place != "sign":
            mask = torch.from_numpy(overlay_mask(scene.lettering, width_px, height_px) >= 128)
            instance_BHW[index][mask.to(instance_BHW.device)] = LETTERING
    return instance_BHW


def depth_pictures(maps: Maps, scenes: Sequence[Scene]) -> Tensor:
    """Depth maps as gray uint8 pictures (B, H, W, 3): near is white; the scale depends on the camera alone."""
    distance = torch.tensor([view_of(scene.camera).distance for scene in scenes], device=maps.depth_BHW.device)
    near, far = (0.55 * distance)[:, None, None], (1.75 * distance)[:, None, None]
    share = ((far - maps.depth_BHW) / (far - near)).clamp(0.0, 1.0)
    return (share * 255.0).round().to(torch.uint8)[..., None].expand(-1, -1, -1, 3).contiguous()


def edge_pictures(fine: Maps) -> Tensor:
    """White edges on black, uint8 (B, H/2, W/2, 3), from maps of twice the size: outlines and creases, antialiased."""
    face = fine.face_BHW
    edge = torch.zeros_like(face, dtype=torch.bool)
    right, down = face[:, :, 1:] != face[:, :, :-1], face[:, 1:] != face[:, :-1]
    edge[:, :, 1:] |= right
    edge[:, :, :-1] |= right
    edge[:, 1:] |= down
    edge[:, :-1] |= down
    gray = torch.nn.functional.avg_pool2d(edge[:, None].float(), 2)[:, 0]
    return (gray * 255.0).round().to(torch.uint8)[..., None].expand(-1, -1, -1, 3).contiguous()


def visible_pixels(maps: Maps, index: int) -> dict[int, int]:
    """How many pixels of picture `index` each subject (and the sign) takes."""
    values, counts = maps.instance_BHW[index].unique(return_counts=True)
    return {
        int(value): int(count)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        if 0 <= value <= SIGN_OWNER
    }
