"""Pictures of every sort that a model is shown: of a scene, of its depth or edges, or of a palette."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from licht.world.maps import depth_pictures, edge_pictures, render_maps
from licht.world.render import check_size, render
from licht.world.scene import Scene
from licht.world.vocabulary import hex_of


@dataclass(frozen=True, slots=True)
class Photo:
    """A scene as it looks."""

    scene: Scene


@dataclass(frozen=True, slots=True)
class DepthMap:
    """How far everything in a scene is: near is white."""

    scene: Scene


@dataclass(frozen=True, slots=True)
class EdgeMap:
    """Outlines and creases of a scene: white on black."""

    scene: Scene


@dataclass(frozen=True, slots=True)
class Palette:
    """Upright strips of colour (names or `#rrggbb`) from left to right."""

    colors: tuple[str, ...]


Picture = Photo | DepthMap | EdgeMap | Palette


def _palette(palette: Palette, width_px: int, height_px: int) -> Tensor:
    image = torch.empty((height_px, width_px, 3), dtype=torch.uint8)
    count = len(palette.colors)
    for step, color in enumerate(palette.colors):
        code = hex_of(color)
        value = torch.tensor([int(code[at : at + 2], 16) for at in (1, 3, 5)], dtype=torch.uint8)
        image[:, round(step * width_px / count) : round((step + 1) * width_px / count)] = value
    return image


def render_pictures(
    pictures: Sequence[Picture],
    width_px: int,
    height_px: int,
    *,
    samples: int = 2,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Pictures of any sorts as uint8 (B, H, W, 3) on `device`. See `render` for sizes and samples."""
    check_size(width_px, height_px)
    images = torch.empty((len(pictures), height_px, width_px, 3), dtype=torch.uint8, device=device)
    photos = [(i, each.scene) for i, each in enumerate(pictures) if isinstance(each, Photo)]
    depths = [(i, each.scene) for i, each in enumerate(pictures) if isinstance(each, DepthMap)]
    edges = [(i, each.scene) for i, each in enumerate(pictures) if isinstance(each, EdgeMap)]
    if photos:
        scenes = [scene for _, scene in photos]
        images[[i for i, _ in photos]] = render(scenes, width_px, height_px, samples=samples, device=device)
    if depths:
        scenes = [scene for _, scene in depths]
        images[[i for i, _ in depths]] = depth_pictures(render_maps(scenes, width_px, height_px, device=device), scenes)
    if edges:
        scenes = [scene for _, scene in edges]
        fine = render_maps(scenes, 2 * width_px, 2 * height_px, device=device)
        images[[i for i, _ in edges]] = edge_pictures(fine)
    for index, each in enumerate(pictures):
        if isinstance(each, Palette):
            images[index] = _palette(each, width_px, height_px).to(device)
    return images
