"""A scene: a frozen description from which the picture, its maps, its captions and its edits all come.

World units: a large cube has side 1. The floor is the plane y = 0, x points to the right of the picture, z towards the
camera. Every angle is in degrees, every position is the middle of what stands there, on the floor.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, TypeVar

from licht.core.errors import InvalidRequest
from licht.world import vocabulary as v

T = TypeVar("T")

MAX_SUBJECTS: Final = 10
MAX_LETTERS: Final = 8


def _one_of(value: object, choices: tuple[object, ...], field: str) -> None:
    if value not in choices:
        listed = ", ".join(str(choice) for choice in choices)
        raise InvalidRequest(f"{field} is {value!r}; expected one of {listed}", field=field)


def _color(value: object, field: str) -> None:
    if not isinstance(value, str) or (value not in v.COLORS and not v.is_hex(value)):
        raise InvalidRequest(f"{field} is {value!r}; expected #rrggbb or one of {', '.join(v.COLORS)}", field=field)


@dataclass(frozen=True, slots=True)
class Floor:
    """What everything stands on: plain (a floor colour), checkered (two floor colours) or wooden (no colour)."""

    kind: v.FloorKind = "plain"
    color: str = "gray"
    second: str | None = None

    def __post_init__(self) -> None:
        _one_of(self.kind, v.FLOOR_KINDS, "floor.kind")
        if self.kind == "plain":
            _one_of(self.color, tuple(v.FLOOR_COLORS), "floor.color")
        if self.kind == "checkered":
            _one_of((self.color, self.second), v.CHECKERED_FLOORS, "floor.color")
        if self.kind != "checkered" and self.second is not None:
            raise InvalidRequest("floor.second is only for a checkered floor", field="floor.second")

    @property
    def name(self) -> str:
        """One of `FLOOR_NAMES`."""
        if self.kind == "wooden":
            return "wooden"
        return self.color if self.second is None else f"{self.color} and {self.second}"

    @property
    def hexes(self) -> tuple[str, ...]:
        """The floor's one or two colours as `#rrggbb`."""
        if self.kind == "wooden":
            return v.WOOD
        names = (self.color,) if self.second is None else (self.color, self.second)
        return tuple(v.FLOOR_COLORS[name] if name in v.FLOOR_COLORS else v.COLORS[name] for name in names)


@dataclass(frozen=True, slots=True)
class Thing:
    """One plain solid. `second` is the other colour of a pattern; `on` is the index of the subject it stands on."""

    shape: v.Shape
    color: str
    size: v.ObjectSize = "large"
    material: v.Material = "matte"
    pattern: v.Pattern = "plain"
    second: str | None = None
    x: float = 0.0
    z: float = 0.0
    turn_deg: float = 0.0
    on: int | None = None

    def __post_init__(self) -> None:
        _one_of(self.shape, v.SHAPES, "shape")
        _one_of(self.size, v.SIZES, "size")
        _one_of(self.material, v.MATERIALS, "material")
        _one_of(self.pattern, v.PATTERNS, "pattern")
        _color(self.color, "color")
        if self.pattern == "plain" and self.second is not None:
            raise InvalidRequest("second is only for a striped, dotted or checkered thing", field="second")
        if self.pattern != "plain":
            _color(self.second, "second")

    @property
    def scale(self) -> float:
        """Size relative to a large thing."""
        return 1.0 if self.size == "large" else v.SMALL_SCALE


@dataclass(frozen=True, slots=True)
class Character:
    """A small figure of a body, a head with two eyes, two hands (coloured as the head) and perhaps a hat."""

    body: v.Body
    body_color: str
    head_color: str
    hat: v.Hat = "none"
    hat_color: str | None = None
    facing: v.Facing = "camera"
    arms: v.Arms = "down"
    x: float = 0.0
    z: float = 0.0

    def __post_init__(self) -> None:
        _one_of(self.body, v.BODIES, "body")
        _one_of(self.hat, v.HATS, "hat")
        _one_of(self.facing, v.FACINGS, "facing")
        _one_of(self.arms, v.ARMS, "arms")
        _color(self.body_color, "body_color")
        _color(self.head_color, "head_color")
        if self.hat == "none" and self.hat_color is not None:
            raise InvalidRequest("hat_color is only for a character with a hat", field="hat_color")
        if self.hat != "none":
            _color(self.hat_color, "hat_color")


Subject = Thing | Character


@dataclass(frozen=True, slots=True)
class Light:
    """The key light. `spot` darkens everything but a pool of light on one part of the floor."""

    side: v.LightSide = "left"
    height: v.LightHeight = "high"
    warmth: v.Warmth = "neutral"
    spot: v.Spot = "none"

    def __post_init__(self) -> None:
        _one_of(self.side, v.LIGHT_SIDES, "light.side")
        _one_of(self.height, v.LIGHT_HEIGHTS, "light.height")
        _one_of(self.warmth, v.WARMTHS, "light.warmth")
        _one_of(self.spot, v.SPOTS, "light.spot")


@dataclass(frozen=True, slots=True)
class Camera:
    """`extent` is half of what the picture's shorter side shows at medium distance, in world units.

    `lift` moves everything in the picture up, as a share of half the shorter side (negative: down).
    """

    height: v.CameraHeight = "eye level"
    distance: v.CameraDistance = "medium"
    extent: float = 1.35
    lift: float = 0.0

    def __post_init__(self) -> None:
        _one_of(self.height, v.CAMERA_HEIGHTS, "camera.height")
        _one_of(self.distance, v.CAMERA_DISTANCES, "camera.distance")
        if not 0.5 <= self.extent <= 8.0 or not -1.0 <= self.lift <= 1.0:
            raise InvalidRequest("camera.extent must lie in 0.5..8 and camera.lift in -1..1", field="camera.extent")


@dataclass(frozen=True, slots=True)
class Lettering:
    """One or two lines of capitals: over the scene (`top`, `bottom`) or printed on a board that stands at x, z."""

    lines: tuple[str, ...]
    font: v.FontName = "sans"
    size: v.TextSize = "medium"
    color: str = "black"
    place: v.TextPlace = "top"
    board: str | None = None
    x: float = 0.0
    z: float = 0.0

    def __post_init__(self) -> None:
        _one_of(self.font, v.FONTS, "lettering.font")
        _one_of(self.size, v.TEXT_SIZES, "lettering.size")
        _one_of(self.place, v.TEXT_PLACES, "lettering.place")
        _color(self.color, "lettering.color")
        if self.place == "sign":
            _color(self.board, "lettering.board")
        elif self.board is not None:
            raise InvalidRequest("lettering.board is only for a sign", field="lettering.board")
        if len(self.lines) not in {1, 2}:
            raise InvalidRequest(f"lettering has {len(self.lines)} lines; expected 1 or 2", field="lettering.lines")
        for line in self.lines:
            if not (1 <= len(line) <= MAX_LETTERS and line.isascii() and line.isalnum() and line == line.upper()):
                raise InvalidRequest(
                    f"lettering line {line!r}: expected 1 to {MAX_LETTERS} capitals or digits", field="lettering.lines"
                )


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is in one picture. `aspect` is the width / height that it was composed for.

    The shorter side of a picture always shows the same part of the world, so a scene composed for a square can be
    drawn at every aspect ratio.
    """

    floor: Floor = Floor()
    subjects: tuple[Subject, ...] = ()
    light: Light = Light()
    camera: Camera = Camera()
    lettering: Lettering | None = None
    aspect: float = 1.0

    def __post_init__(self) -> None:
        if len(self.subjects) > MAX_SUBJECTS:
            raise InvalidRequest(
                f"a scene has {len(self.subjects)} subjects; expected at most {MAX_SUBJECTS}", field="subjects"
            )
        if not 0.5 <= self.aspect <= 2.0:
            raise InvalidRequest(f"aspect is {self.aspect}; expected 0.5 to 2", field="aspect")
        for index, subject in enumerate(self.subjects):
            if isinstance(subject, Thing) and subject.on is not None:
                self._check_support(index, subject.on)

    def _check_support(self, index: int, support: int) -> None:
        field = f"subjects[{index}].on"
        below = self.subjects[support] if 0 <= support < len(self.subjects) else None
        if not isinstance(below, Thing) or below.shape not in {"cube", "cylinder"} or below.on is not None:
            raise InvalidRequest(f"{field} is {support}; expected the index of a cube or cylinder", field=field)

    def with_subject(self, index: int, subject: Subject) -> "Scene":
        """The same scene with one subject replaced."""
        return replace(self, subjects=(*self.subjects[:index], subject, *self.subjects[index + 1 :]))


def scene_to_dict(scene: Scene) -> dict[str, Any]:
    """The scene as plain data: every field, subjects tagged with `type`."""
    data = asdict(scene)
    for plain, subject in zip(data["subjects"], scene.subjects, strict=True):
        plain["type"] = "thing" if isinstance(subject, Thing) else "character"
    data["subjects"] = list(data["subjects"])
    if scene.lettering is not None:
        data["lettering"]["lines"] = list(scene.lettering.lines)
    return data


def scene_to_json(scene: Scene) -> str:
    """Canonical JSON: sorted keys, no spaces; equal scenes give equal text."""
    return json.dumps(scene_to_dict(scene), sort_keys=True, separators=(",", ":"))


def _build(kind: type[T], data: object, field: str) -> T:
    """A dataclass from a mapping of its fields, with errors that name the field."""
    if not isinstance(data, Mapping):
        raise InvalidRequest(f"{field} is {type(data).__name__}; expected an object", field=field)
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type] # every caller passes a dataclass
    for key in data:
        if key not in known:
            raise InvalidRequest(f"{field}.{key} is not known; expected {', '.join(sorted(known))}", field=field)
    try:
        return kind(**data)
    except (TypeError, AttributeError):
        raise InvalidRequest(f"{field} lacks a field or has one of a wrong type", field=field) from None


def _subject(data: object, index: int) -> Subject:
    field = f"subjects[{index}]"
    tag = data.get("type") if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or tag not in {"thing", "character"}:
        raise InvalidRequest(f'{field}.type: expected "thing" or "character"', field=f"{field}.type")
    rest = {key: value for key, value in data.items() if key != "type"}
    return _build(Thing, rest, field) if tag == "thing" else _build(Character, rest, field)


def _lettering(data: object) -> Lettering:
    if isinstance(data, Mapping) and isinstance(data.get("lines"), list):
        data = {**data, "lines": tuple(data["lines"])}
    return _build(Lettering, data, "lettering")


def scene_from_dict(data: Mapping[str, Any]) -> Scene:
    """The scene that `scene_to_dict` described. Raises `InvalidRequest` naming the field that is wrong."""
    built: dict[str, Any] = dict(data)
    for name, kind in (("floor", Floor), ("light", Light), ("camera", Camera)):
        if name in built:
            built[name] = _build(kind, built[name], name)
    if built.get("lettering") is not None:
        built["lettering"] = _lettering(built["lettering"])
    listed = built.get("subjects", ())
    if not isinstance(listed, list | tuple):
        raise InvalidRequest("subjects: expected a list", field="subjects")
    built["subjects"] = tuple(_subject(each, index) for index, each in enumerate(listed))
    return _build(Scene, built, "scene")


def scene_from_json(text: str) -> Scene:
    """The scene that `scene_to_json` wrote. Raises `InvalidRequest` for anything else."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"a scene must be JSON: {error}", field="scene") from None
    if not isinstance(data, Mapping):
        raise InvalidRequest("a scene must be a JSON object", field="scene")
    return scene_from_dict(data)
