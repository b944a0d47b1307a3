"""The words of the world and what they mean in numbers: colours, floors, shapes, materials, lights, cameras, fonts."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

Shape = Literal["sphere", "cube", "cylinder", "cone", "torus", "capsule"]
ObjectSize = Literal["small", "large"]
Material = Literal["matte", "shiny", "metal"]
Pattern = Literal["plain", "striped", "dotted", "checkered"]
FloorKind = Literal["plain", "checkered", "wooden"]
Body = Literal["round", "square", "pointed"]
Hat = Literal["pointed", "top", "none"]
Facing = Literal["camera", "left", "right"]
Arms = Literal["down", "up"]
LightSide = Literal["left", "right", "front", "behind", "above"]
LightHeight = Literal["low", "high"]
Warmth = Literal["warm", "neutral", "cool"]
Spot = Literal["none", "left", "middle", "right"]
CameraHeight = Literal["low", "eye level", "high"]
CameraDistance = Literal["close", "medium", "far"]
FontName = Literal["sans", "serif", "typewriter"]
TextSize = Literal["small", "medium", "large"]
TextPlace = Literal["top", "bottom", "sign"]

SHAPES: Final[tuple[Shape, ...]] = ("sphere", "cube", "cylinder", "cone", "torus", "capsule")
SIZES: Final[tuple[ObjectSize, ...]] = ("small", "large")
MATERIALS: Final[tuple[Material, ...]] = ("matte", "shiny", "metal")
PATTERNS: Final[tuple[Pattern, ...]] = ("plain", "striped", "dotted", "checkered")
EVEN_PATTERNS: Final[tuple[Pattern, ...]] = ("striped", "checkered")
"""Those of whose two colours neither is the ground."""
FLOOR_KINDS: Final[tuple[FloorKind, ...]] = ("plain", "checkered", "wooden")
BODIES: Final[tuple[Body, ...]] = ("round", "square", "pointed")
HATS: Final[tuple[Hat, ...]] = ("pointed", "top", "none")
FACINGS: Final[tuple[Facing, ...]] = ("camera", "left", "right")
ARMS: Final[tuple[Arms, ...]] = ("down", "up")
LIGHT_SIDES: Final[tuple[LightSide, ...]] = ("left", "right", "front", "behind", "above")
LIGHT_HEIGHTS: Final[tuple[LightHeight, ...]] = ("low", "high")
WARMTHS: Final[tuple[Warmth, ...]] = ("warm", "neutral", "cool")
SPOTS: Final[tuple[Spot, ...]] = ("none", "left", "middle", "right")
CAMERA_HEIGHTS: Final[tuple[CameraHeight, ...]] = ("low", "eye level", "high")
CAMERA_DISTANCES: Final[tuple[CameraDistance, ...]] = ("close", "medium", "far")
FONTS: Final[tuple[FontName, ...]] = ("sans", "serif", "typewriter")
TEXT_SIZES: Final[tuple[TextSize, ...]] = ("small", "medium", "large")
TEXT_PLACES: Final[tuple[TextPlace, ...]] = ("top", "bottom", "sign")

COLORS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "red": "#d62f2b",
        "green": "#2f9a3e",
        "blue": "#2a56c8",
        "yellow": "#f2cf2b",
        "purple": "#7a3cb4",
        "orange": "#ee8023",
        "cyan": "#38c4da",
        "white": "#f4f4f2",
        "black": "#232326",
        "pink": "#f08ab4",
        "brown": "#7b4a2a",
        "gray": "#8d9094",
    }
)
"""Named colours of objects, lettering and boards, as sRGB."""

FLOOR_COLORS: Final[Mapping[str, str]] = MappingProxyType(
    {"gray": "#b8babd", "beige": "#dccfb2", "teal": "#4d9a98", "lilac": "#b6a5d6", "white": "#ededea"}
)
"""Named colours of plain floors, as sRGB; the wall behind takes the same tone."""

CHECKERED_FLOORS: Final[tuple[tuple[str, str], ...]] = (
    ("black", "white"),
    ("gray", "white"),
    ("teal", "white"),
    ("beige", "white"),
    ("lilac", "white"),
)
"""Pairs of tile colours; `black` is the colour of the same name in `COLORS`, the others are floor colours."""
FLOOR_NAMES: Final = (*FLOOR_COLORS, *(" and ".join(pair) for pair in CHECKERED_FLOORS), "wooden")
"""Every floor there is, as `Floor.name` says it."""

WOOD: Final = ("#c39a6b", "#ad8252")
"""The two plank colours of the wooden floor, as sRGB."""

SMALL_SCALE: Final = 0.55
"""A small object measures this much of a large one. Camera distances stay closer together than that."""

LIGHT_COLORS: Final[Mapping[str, tuple[float, float, float]]] = MappingProxyType(
    {"warm": (1.10, 0.96, 0.76), "neutral": (1.0, 1.0, 1.0), "cool": (0.84, 0.98, 1.12)}
)
"""Linear tint of the key light; the fill light takes half of it."""

CAMERA_PITCH_DEG: Final[Mapping[str, float]] = MappingProxyType({"low": 8.0, "eye level": 21.0, "high": 43.0})
DISTANCE_FACTOR: Final[Mapping[str, float]] = MappingProxyType({"close": 0.8, "medium": 1.0, "far": 1.25})

TEXT_CAP_HEIGHT: Final[Mapping[str, float]] = MappingProxyType({"small": 0.10, "medium": 0.135, "large": 0.18})
"""Height of a capital letter over the scene, as a share of the picture's shorter side."""


def is_hex(color: str) -> bool:
    """Whether the colour is written `#rrggbb` with lower-case digits."""
    return len(color) == 7 and color[0] == "#" and all(digit in "0123456789abcdef" for digit in color[1:])


def hex_of(color: str, table: Mapping[str, str] = COLORS) -> str:
    """`#rrggbb` of a named colour of `table`, or of a colour that already is one."""
    return color if is_hex(color) else table[color]


def srgb_of(color: str) -> tuple[float, float, float]:
    """The three sRGB values in [0, 1] of `#rrggbb`."""
    return int(color[1:3], 16) / 255.0, int(color[3:5], 16) / 255.0, int(color[5:7], 16) / 255.0


def linear_of(color: str) -> tuple[float, float, float]:
    """The three linear-light values in [0, 1] of `#rrggbb` (IEC 61966-2-1)."""

    def decode(value: float) -> float:
        return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)

    red, green, blue = srgb_of(color)
    return decode(red), decode(green), decode(blue)


def oklab_of(color: str) -> tuple[float, float, float]:
    """Lightness and two chroma coordinates of `#rrggbb` (Ottosson's Oklab, 2020)."""
    red, green, blue = linear_of(color)
    long = (0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue) ** (1 / 3)
    middle = (0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue) ** (1 / 3)
    short = (0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    )


def color_distance(first: str, second: str) -> float:
    """Euclidean distance of two `#rrggbb` colours in Oklab; 0.1 is clearly visible, black to white is 1."""
    a, b = oklab_of(first), oklab_of(second)
    return float(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5)


def nearest_name(color: str) -> str:
    """The named colour that looks most like `#rrggbb`."""
    return min(COLORS, key=lambda name: color_distance(COLORS[name], color))
