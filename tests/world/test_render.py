from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from licht.core.errors import InvalidRequest
from licht.world import pack, shapes
from licht.world import vocabulary as v
from licht.world.labels import labels
from licht.world.maps import LETTERING, NOTHING, depth_pictures, edge_pictures, render_maps
from licht.world.parts import SIGN_OWNER
from licht.world.pictures import DepthMap, EdgeMap, Palette, Photo, render_pictures
from licht.world.render import render, render_float
from licht.world.sample import KINDS, sample_scene
from licht.world.scene import Camera, Character, Floor, Lettering, Light, Scene, Thing
from licht.world.shading import encode

MIXED = [sample_scene(kind, 21, 0) for kind in KINDS]
EVERY_SURFACE = [
    *(
        Scene(Floor(), (Thing(shape, "red", material="metal"), Thing("cube", "blue", x=1.3)), camera=Camera(extent=2.0))
        for shape in v.SHAPES
    ),
    *(
        Scene(Floor("wooden", "wood"), (Thing(shape, "red", "large", "shiny", pattern, "white"),))
        for shape in v.SHAPES
        for pattern in v.PATTERNS[1:]
    ),
]


def _gray(picture: torch.Tensor) -> torch.Tensor:
    return picture.float().mean(-1)


def test_pictures_are_uint8_of_the_size_asked_for() -> None:
    picture = render(MIXED[:2], 96, 64)
    assert (picture.shape, picture.dtype) == ((2, 64, 96, 3), torch.uint8)
    exact = render_float(MIXED[:2], 96, 64)
    assert exact.dtype == torch.float32
    assert 0 <= float(exact.min()) < float(exact.max()) <= 1
    assert torch.equal((exact * 255).round().to(torch.uint8), picture)


@pytest.mark.parametrize("size", [(32, 64), (100, 64), (64, 4096)])
def test_other_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidRequest, match="multiple of 16"):
        render(MIXED[:1], *size)


def test_a_picture_is_the_same_in_every_batch() -> None:
    together = render(MIXED, 64, 64)
    for index in range(0, len(MIXED), 3):
        assert torch.equal(render([MIXED[index]], 64, 64)[0], together[index])
    assert torch.equal(render(MIXED[::-1], 64, 64), together.flip(0))


def test_leaving_out_tiles_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [*MIXED, *EVERY_SURFACE[: len(v.SHAPES)]]
    culled = render(scenes, 128, 64)

    def all_tiles(_: pack.Floats, scene_of: pack.Ints, columns: int, rows: int) -> tuple[pack.Ints, pack.Ints]:
        part = np.repeat(np.arange(len(scene_of)), columns * rows)
        return scene_of[part] * (columns * rows) + np.tile(np.arange(columns * rows), len(scene_of)), part

    monkeypatch.setattr(pack, "_tiles", all_tiles)
    assert torch.equal(render(scenes, 128, 64), culled)


@pytest.mark.parametrize("height", v.CAMERA_HEIGHTS)
@pytest.mark.parametrize("shape", v.SHAPES)
def test_outlines_hold_what_is_drawn(shape: v.Shape, height: v.CameraHeight) -> None:
    scene = Scene(subjects=(Thing(shape, "red", turn_deg=17.0),), camera=Camera(height))
    drawn = (render_maps([scene], 256, 256).instance_BHW[0] == 0).nonzero()
    (top, left), (bottom, right) = drawn.min(0).values.tolist(), drawn.max(0).values.tolist()
    box = [256 * side for side in labels(scene, 256, 256)[0].box]
    # Measured at 512 px: at most 0.5 % of the width outside; a ring of twelve points lies 2 % too far out.
    for inner, outer, sign in ((left, box[0], 1), (top, box[1], 1), (right + 1, box[2], -1), (bottom + 1, box[3], -1)):
        assert -1.5 <= sign * (inner - outer) <= 5


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # PyTorch's own
        self.names: set[str] = set()
        self.scalar_divisions: list[str] = []
        self.sums_of_fractions: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        name = func.overloadpacket.__name__
        self.names.add(name)
        floating = isinstance(args[0], torch.Tensor) and args[0].is_floating_point() if args else False
        if name == "div" and floating and not (isinstance(args[1], torch.Tensor) and args[1].dim()):
            self.scalar_divisions.append(str(func))
        if name == "sum" and floating:  # its order differs between devices
            self.sums_of_fractions.append(str(func))
        return func(*args, **(kwargs or {}))


EXACTLY_ROUNDED = {
    "abs",
    "add",
    "clamp",
    "div",
    "floor",
    "maximum",
    "minimum",
    "mul",
    "neg",
    "reciprocal",
    "round",
    "rsub",
    "sqrt",
    "sub",
    "where",
}
COMPARING = {"__and__", "eq", "gt", "lt", "nonzero"}
WHOLE_NUMBERS = {"arange", "floor_divide", "remainder", "sum"}
MOVING = {
    *("_to_copy", "contiguous", "copy_", "detach", "detach_", "empty", "empty_like", "expand", "flatten", "full"),
    *(
        "full_like",
        "index",
        "index_copy_",
        "index_put_",
        "index_select",
        "lift_fresh",
        "ones_like",
        "permute",
        "reshape",
    ),
    *("resolve_conj", "resolve_neg", "select", "slice", "squeeze", "stack", "to", "unsqueeze", "view", "zeros_like"),
}


def test_only_exactly_rounded_operations_are_used() -> None:
    # IEEE 754 fixes the result of + - * / and roots; with nothing else, devices cannot disagree. PyTorch on CUDA turns
    # a division by a number into a product with its reciprocal, so there must be none of those either.
    with _Recorder() as recorder:
        render([*MIXED, *EVERY_SURFACE], 64, 64)
    assert {"mul", "add", "sqrt", "where", "reciprocal"} <= recorder.names
    assert recorder.names - EXACTLY_ROUNDED - COMPARING - WHOLE_NUMBERS - MOVING == set()
    assert recorder.sums_of_fractions == []
    assert recorder.scalar_divisions == []


def test_the_check_of_operations_can_fail() -> None:
    with _Recorder() as recorder:
        _ = torch.ones(3).exp().sum() / 3.0
    assert "exp" in recorder.names - EXACTLY_ROUNDED - COMPARING - WHOLE_NUMBERS - MOVING
    assert recorder.scalar_divisions
    assert recorder.sums_of_fractions


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same_within_one() -> None:
    scenes = [*MIXED, *EVERY_SURFACE]
    there = render(scenes, 128, 128, device="cuda").cpu()
    assert int((render(scenes, 128, 128).int() - there.int()).abs().max()) <= 1


def test_encoding_is_nearly_the_standard_curve() -> None:
    linear = torch.linspace(0, 1, 4097, dtype=torch.float64)
    exact = torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    # Measured: 0.00196 at most, half a step of 8 bits.
    assert float((encode(linear) - exact).abs().max()) < 0.002


def test_more_samples_come_close_to_each_other() -> None:
    scene = [MIXED[1]]
    two, four = (render_float(scene, 128, 128, samples=samples) for samples in (2, 4))
    one = render_float(scene, 128, 128, samples=1)
    assert float((two - four).abs().mean()) < float((one - four).abs().mean())
    assert float((two - four).abs().mean()) < 0.005


@pytest.mark.parametrize("color", sorted(v.COLORS))
def test_named_colours_look_like_their_names(color: str) -> None:
    scene = Scene(Floor("plain", "teal"), (Thing("sphere", color),), Light("front", "high"))
    mask = render_maps([scene], 128, 128).instance_BHW[0] == 0
    mean = render_float([scene], 128, 128)[0][mask].median(0).values
    drawn = "#" + "".join(f"{round(float(channel) * 255):02x}" for channel in mean)
    assert v.nearest_name(drawn) == color


@pytest.mark.parametrize(("side", "sign"), [("left", 1), ("right", -1)])
def test_shadows_fall_away_from_the_light(side: v.LightSide, sign: int) -> None:
    scene, empty = (
        Scene(subjects=subjects, light=Light(side, "low"), camera=Camera(extent=2.0))
        for subjects in ((Thing("sphere", "red"),), ())
    )
    picture, bare = _gray(render([scene, empty], 128, 128))
    floor = render_maps([scene], 128, 128).instance_BHW[0] == NOTHING
    dark = ((bare - picture) > 12) & floor
    assert int(dark.sum()) > 100
    assert sign * (float(dark.nonzero()[:, 1].float().mean()) - 63.5) > 8


def test_light_warms_and_cools() -> None:
    warm, neutral, cool = (
        render_float([Scene(light=Light(warmth=warmth))], 64, 64).mean((0, 1, 2))
        for warmth in ("warm", "neutral", "cool")
    )
    assert float(warm[0] / warm[2]) > float(neutral[0] / neutral[2]) > float(cool[0] / cool[2])


def test_a_spotlight_is_bright_where_it_says() -> None:
    for spot, third in (("left", 0), ("middle", 1), ("right", 2)):
        scene = Scene(light=Light("above", spot=spot), camera=Camera("high", extent=1.8))  # type: ignore[arg-type] # spots
        row = _gray(render([scene], 96, 96))[0, 40:70].mean(0)
        assert max(range(3), key=lambda index: float(row[32 * index : 32 * index + 32].mean())) == third


def test_metal_mirrors_and_matte_does_not() -> None:
    def beside(material: v.Material, neighbour: str) -> torch.Tensor:
        pair = (Thing("sphere", "white", "large", material, x=-0.7), Thing("cube", neighbour, x=0.75))
        return render_float([Scene(subjects=pair, light=Light("left"), camera=Camera(extent=1.7))], 128, 128)[0]

    ball = render_maps([Scene(subjects=(Thing("sphere", "white", x=-0.7),), camera=Camera(extent=1.7))], 128, 128)
    inside = ball.instance_BHW[0] == 0
    change = {
        material: float((beside(material, "red") - beside(material, "blue"))[inside].abs().max())
        for material in ("matte", "shiny", "metal")
    }
    assert change["metal"] > 0.2
    assert change["metal"] > change["shiny"] > 0.01
    assert change["matte"] == 0


def test_cameras_move() -> None:
    ball = (Thing("sphere", "red"),)
    rows, areas = {}, {}
    for height in v.CAMERA_HEIGHTS:
        depth = render_maps([Scene(subjects=ball, camera=Camera(height))], 128, 128).depth_BHW[0]
        rows[height] = int((depth < shapes.FAR).any(1).nonzero()[0])
    for distance in v.CAMERA_DISTANCES:
        scene = Scene(subjects=ball, camera=Camera(distance=distance))
        areas[distance] = int((render_maps([scene], 128, 128).instance_BHW == 0).sum())
    assert rows["low"] >= rows["eye level"] >= rows["high"]
    assert areas["close"] > 1.3 * areas["medium"] > 1.6 * areas["far"]


def test_maps_tell_near_from_far_and_one_from_another() -> None:
    pair = (Thing("cube", "red", x=-0.5, z=0.9), Thing("cube", "blue", x=0.5, z=-0.9))
    text = Lettering(("SUN",), place="top")
    scene = Scene(subjects=pair, camera=Camera(extent=2.0), lettering=text)
    sign = Scene(lettering=Lettering(("SUN",), place="sign", board="white"))
    maps = render_maps([scene, sign], 128, 96)
    assert set(maps.instance_BHW[0].unique().tolist()) == {NOTHING, 0, 1, LETTERING}
    assert set(maps.instance_BHW[1].unique().tolist()) == {NOTHING, SIGN_OWNER}
    near, far = (float(maps.depth_BHW[0][maps.instance_BHW[0] == index].mean()) for index in (0, 1))
    assert near < far
    shown = depth_pictures(maps, [scene, sign])[0].float().mean(-1)
    assert float(shown[maps.instance_BHW[0] == 0].mean()) > float(shown[maps.instance_BHW[0] == 1].mean())
    edges = edge_pictures(render_maps([scene], 256, 192))
    assert edges.shape == (1, 96, 128, 3)
    assert 0.01 < float((edges > 127).float().mean()) < 0.15


def test_palettes_are_strips_of_exact_colours() -> None:
    image = render_pictures([Palette(("red", "#0102f3"))], 64, 64)[0]
    assert image[10, 5].tolist() == [0xD6, 0x2F, 0x2B]
    assert image[10, 60].tolist() == [1, 2, 0xF3]


def test_pictures_of_all_sorts_keep_their_order() -> None:
    scene = MIXED[1]
    images = render_pictures(
        [EdgeMap(scene), Photo(scene), Palette(("red",)), DepthMap(scene), Photo(MIXED[2])], 64, 64
    )
    assert torch.equal(images[1], render([scene], 64, 64)[0])
    assert torch.equal(images[4], render([MIXED[2]], 64, 64)[0])
    assert torch.equal(images[0][..., 0], images[0][..., 2])
    assert images[2].unique(dim=0).shape[0] == 1
    assert not torch.equal(images[3], images[0])


def test_characters_show_their_colours_and_eyes() -> None:
    who = Character("round", "red", "yellow", "pointed", "blue")
    picture = render_float([Scene(subjects=(who,), camera=Camera(extent=1.4))], 192, 192)[0]
    pixels = picture.reshape(-1, 3)
    for name in ("red", "yellow", "blue"):
        distance = (pixels - torch.tensor(v.srgb_of(v.COLORS[name]))).abs().max(1).values
        assert int((distance < 0.12).sum()) > 60
    assert int((pixels.max(1).values < 0.22).sum()) > 10


def test_words_on_a_sign_are_printed_in_their_colour() -> None:
    board = Lettering(("MOON",), "sans", "large", "black", "sign", "white")
    scene, blank = (
        Scene(lettering=text, camera=Camera(extent=1.6), light=Light("front"))
        for text in (board, Lettering(("MOON",), "sans", "large", "white", "sign", "white"))
    )
    printed, empty = _gray(render([scene, blank], 128, 128))
    dark = (empty - printed) > 90
    share = float(dark.sum()) / int((render_maps([scene], 128, 128).instance_BHW == SIGN_OWNER).sum())
    assert 0.1 < share < 0.4
