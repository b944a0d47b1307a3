"""What is true of a scene, thing by thing, with its place in the picture: what a recogniser is trained on."""

from dataclasses import dataclass
from typing import Literal

from licht.world import vocabulary as v
from licht.world.arrange import sides
from licht.world.layout import Side, silhouettes
from licht.world.parts import SIGN_OWNER
from licht.world.scene import Scene, Thing


@dataclass(frozen=True, slots=True)
class Label:
    """One subject. `kind` is a thing's shape or `character`; what only things have is None for characters.

    `color` is as the scene names it, `hex` the same as `#rrggbb` (a character's is its body's). `center` and `box`
    (left, top, right, bottom) are shares of the picture's width and height, y downwards, occlusion not considered.
    """

    index: int
    kind: v.Shape | Literal["character"]
    color: str
    hex: str
    size: v.ObjectSize | None
    material: v.Material | None
    pattern: v.Pattern | None
    second: str | None
    side: Side
    center: tuple[float, float]
    box: tuple[float, float, float, float]
    on: int | None


def labels(scene: Scene, width_px: int, height_px: int) -> tuple[Label, ...]:
    """Labels of all subjects in a picture of this size, in the order of the scene's subjects."""
    shorter = min(width_px, height_px)
    told = sides(scene)
    found = []
    for outline in silhouettes(scene):
        if outline.owner == SIGN_OWNER:
            continue
        left, bottom, right, top = outline.bounds
        box = (
            0.5 + left * shorter / (2 * width_px),
            0.5 - top * shorter / (2 * height_px),
            0.5 + right * shorter / (2 * width_px),
            0.5 - bottom * shorter / (2 * height_px),
        )
        center = (0.5 * (box[0] + box[2]), 0.5 * (box[1] + box[3]))
        found.append(_label(scene, outline.owner, told[outline.owner], center, box))
    return tuple(sorted(found, key=lambda label: label.index))


def _label(
    scene: Scene, index: int, side: Side, center: tuple[float, float], box: tuple[float, float, float, float]
) -> Label:
    subject = scene.subjects[index]
    if isinstance(subject, Thing):
        return Label(
            index,
            subject.shape,
            subject.color,
            v.hex_of(subject.color),
            subject.size,
            subject.material,
            subject.pattern,
            subject.second,
            side,
            center,
            box,
            subject.on,
        )
    color = subject.body_color
    return Label(index, "character", color, v.hex_of(color), None, None, None, None, side, center, box, None)
