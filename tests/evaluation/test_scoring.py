import math
from dataclasses import replace

import pytest
import torch

from licht.evaluation import scoring, segmentation
from licht.evaluation.ceiling import matched, recognised
from licht.evaluation.colors import ciede2000, ciede2000_of
from licht.evaluation.intervals import gap, mean, share, share_of_ceiling
from licht.evaluation.reading import Piece, lines_of, reads
from licht.evaluation.seen import Seen, SeenObject, truth
from licht.world.captions import caption
from licht.world.maps import render_maps
from licht.world.render import render
from licht.world.sample import KINDS, sample_scene
from licht.world.scene import Camera, Character, Floor, Lettering, Light, Scene, Thing
from licht.world.vocabulary import Pattern, Shape

RED = Thing("sphere", "red", x=-0.8)
BLUE = Thing("cube", "blue", "small", "shiny", x=0.8)
PAIR = Scene(subjects=(RED, BLUE), camera=Camera(extent=2.0))
EVERYTHING = {f"subjects[{i}].{name}" for i in range(10) for name in ("shape", "color", "size", "material", "pattern")}


def changed(seen: Seen, index: int, **attributes: str) -> Seen:
    one = seen.objects[index]
    new = replace(one, attributes={**one.attributes, **attributes})
    return replace(seen, objects=(*seen.objects[:index], new, *seen.objects[index + 1 :]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_is_always_right(kind: str) -> None:
    for index in range(6):
        scene = sample_scene(kind, 3, index, split="test")  # type: ignore[arg-type] # one of KINDS
        told = caption(scene, 3, index, split="test", full=True)
        seen = truth(scene)
        shuffled = replace(seen, objects=tuple(reversed(seen.objects)))
        assert scoring.objects_right(shuffled, scene, told.stated)
        assert scoring.relation_right(shuffled, scene, told.stated)
        assert scoring.negation_right(shuffled, scene, told.stated, told.forbidden)
        assert scoring.sources_right(shuffled, scene, [0] * len(scene.subjects))
        assert scoring.follows(shuffled, scene)
        assert recognised([shuffled], [seen])["all"] == 1.0


@pytest.mark.parametrize("wrong", [{"color": "green"}, {"size": "small"}, {"material": "metal"}, {"kind": "cone"}])
def test_one_wrong_attribute_is_seen_if_it_was_stated(wrong: dict[str, str]) -> None:
    seen = changed(truth(PAIR), 0, **wrong)
    assert not scoring.objects_right(seen, PAIR, EVERYTHING)
    unstated = {name for name in EVERYTHING if not name.startswith("subjects[0]")}
    assert scoring.objects_right(seen, PAIR, unstated)


@pytest.mark.parametrize(("pattern", "right"), [("striped", True), ("checkered", True), ("dotted", False)])
def test_which_colour_of_stripes_and_checks_comes_first_is_not_asked(pattern: Pattern, right: bool) -> None:
    scene = Scene(subjects=(Thing("cube", "red", pattern=pattern, second="blue"),))
    stated = {f"subjects[0].{name}" for name in ("shape", "color", "pattern")}
    turned = changed(truth(scene), 0, color="blue", second="red")
    assert scoring.objects_right(turned, scene, stated) == right
    assert recognised([turned], [truth(scene)])["all"] == float(right)
    for color, second in (("blue", "green"), ("red", "red"), ("blue", "blue")):
        assert not scoring.objects_right(changed(truth(scene), 0, color=color, second=second), scene, stated)


def test_attributes_on_the_wrong_object_are_wrong() -> None:
    seen = truth(PAIR)
    a, b = seen.objects
    swapped = replace(
        seen,
        objects=(
            replace(a, attributes={**a.attributes, "color": "blue"}),
            replace(b, attributes={**b.attributes, "color": "red"}),
        ),
    )
    assert not scoring.objects_right(swapped, PAIR, EVERYTHING)


def test_missing_and_further_objects_are_wrong() -> None:
    seen = truth(PAIR)
    assert not scoring.objects_right(replace(seen, objects=seen.objects[:1]), PAIR, set())
    assert not scoring.objects_right(replace(seen, objects=(*seen.objects, seen.objects[0])), PAIR, set())
    assert not scoring.relation_right(replace(seen, objects=seen.objects[:1]), PAIR, set())


def moved(seen: Seen, index: int, dx: float, dy: float) -> Seen:
    one = seen.objects[index]
    left, top, right, bottom = one.box
    new = replace(
        one,
        center=(one.center[0] + dx, one.center[1] + dy),
        box=(left + dx, top + dy, right + dx, bottom + dy),
    )
    return replace(seen, objects=(*seen.objects[:index], new, *seen.objects[index + 1 :]))


def test_relations_are_read_off_places() -> None:
    mirrored = moved(moved(truth(PAIR), 0, 0.6, 0), 1, -0.6, 0)
    assert not scoring.relation_right(mirrored, PAIR, EVERYTHING)
    assert scoring.objects_right(mirrored, PAIR, EVERYTHING)
    depth = Scene(subjects=(replace(RED, x=-0.2, z=1.0), replace(BLUE, x=0.2, z=-1.0)), camera=Camera(extent=2.0))
    assert scoring.relation_right(truth(depth), depth, EVERYTHING)
    assert not scoring.relation_right(moved(moved(truth(depth), 0, 0, -0.4), 1, 0, 0.4), depth, EVERYTHING)
    base = Thing("cube", "green")
    stack = Scene(subjects=(base, Thing("sphere", "red", "small", on=0)), camera=Camera(extent=1.6))
    assert scoring.relation_right(truth(stack), stack, EVERYTHING)
    assert not scoring.relation_right(moved(truth(stack), 1, 0.5, 0.3), stack, EVERYTHING)


def test_layouts_need_sides_and_the_pool_of_light() -> None:
    scene = sample_scene("layout", 0, 3)
    lit = replace(scene, light=Light("left", "high", "neutral", "left"))
    assert scoring.layout_right(truth(lit), lit, {"light.spot"})
    dark = replace(truth(lit), picture={**truth(lit).picture, "spot": "right"})
    assert not scoring.layout_right(dark, lit, {"light.spot"})
    assert scoring.layout_right(dark, lit, set())
    assert not scoring.layout_right(
        moved(truth(lit), 0, 1.0 if truth(lit).objects[0].center[0] < 0.5 else -1.0, 0), lit, ()
    )


@pytest.mark.parametrize(
    ("forbidden", "wrong"),
    [
        ("shape:cube", {"kind": "cube"}),
        ("color:green", {"color": "green"}),
        ("color:green", {"kind": "round character", "head": "green"}),
        ("pattern:striped", {"pattern": "striped"}),
        ("hat", {"kind": "round character", "hat": "top"}),
    ],
)
def test_what_was_forbidden_is_noticed(forbidden: str, wrong: dict[str, str]) -> None:
    scene = Scene(subjects=(RED,))
    assert scoring.negation_right(truth(scene), scene, (), (forbidden,))
    assert not scoring.negation_right(changed(truth(scene), 0, **wrong), scene, (), (forbidden,))


def test_forbidden_text_and_further_objects_are_noticed() -> None:
    scene = Scene(subjects=(RED,))
    written = truth(replace(scene, lettering=Lettering(("SUN",))))
    assert not scoring.negation_right(written, scene, (), ("text",))
    assert not scoring.negation_right(truth(PAIR), scene, (), ("else",))


def test_a_relation_holds_between_what_was_asked_for() -> None:
    other = changed(changed(truth(PAIR), 0, kind="cone", color="green"), 1, kind="cone", color="green")
    assert scoring.places_right(other, PAIR)
    assert not scoring.relation_right(other, PAIR, EVERYTHING)
    assert scoring.relation_right(other, PAIR, {"count", "relation"})
    for wrong in ({"kind": "cube"}, {"color": "pink"}):
        assert not scoring.relation_right(changed(truth(PAIR), 0, **wrong), PAIR, EVERYTHING)
    assert scoring.relation_right(changed(truth(PAIR), 0, size="small"), PAIR, EVERYTHING)
    assert not scoring.relation_right(with_more(truth(PAIR)), PAIR, EVERYTHING)


def with_more(seen: Seen) -> Seen:
    """The same and its first object once more, a little aside."""
    return replace(seen, objects=(*seen.objects, moved(seen, 0, 0.05, 0.02).objects[0]))


def test_further_objects_spoil_a_layout_and_a_map_that_is_followed() -> None:
    scene = sample_scene("layout", 0, 3)
    assert scoring.layout_right(truth(scene), scene, ())
    assert not scoring.layout_right(with_more(truth(scene)), scene, ())
    assert scoring.follows(truth(PAIR), PAIR)
    assert not scoring.follows(with_more(truth(PAIR)), PAIR)
    assert not scoring.follows(moved(truth(PAIR), 1, -0.1, 0), PAIR)
    assert not scoring.follows(changed(truth(PAIR), 1, kind="cone"), PAIR)


def test_what_is_asked_for_beside_a_negation_is_there() -> None:
    other = changed(truth(PAIR), 1, kind="cone", color="pink")
    assert scoring.negation_right(truth(PAIR), PAIR, EVERYTHING, ("text",))
    assert not scoring.negation_right(other, PAIR, EVERYTHING, ("text",))
    assert scoring.negation_right(other, PAIR, {"count"}, ("shape:torus",))
    assert scoring.negation_right(changed(truth(PAIR), 0, size="small"), PAIR, EVERYTHING, ("text",))


def test_a_reference_is_kept_with_all_that_it_shows_and_once() -> None:
    who = Character("round", "red", "yellow", "top", "black", arms="up", facing="left")
    scene = Scene(subjects=(who, replace(BLUE, x=1.2)), camera=Camera(extent=2.4))
    seen = truth(scene)
    assert scoring.sources_right(seen, scene, (0, None))
    poses: list[dict[str, str]] = [{"arms": "down"}, {"facing": "camera"}, {"hat": "none"}, {"color": "green"}]
    for wrong in poses:
        assert not scoring.sources_right(changed(seen, 0, **wrong), scene, (0, None))
    assert not scoring.sources_right(with_more(seen), scene, (0, None))
    assert not scoring.sources_right(replace(seen, objects=seen.objects[:1]), scene, (0, None))
    assert not scoring.sources_right(changed(seen, 1, color="red"), scene, (0, None))
    large = changed(seen, 1, size="large")  # described, not shown
    assert scoring.sources_right(large, scene, (0, None))
    assert not scoring.sources_right(large, scene, (0, 1))


def test_the_assignment_is_the_cheapest_of_all() -> None:
    right = truth(PAIR)
    assert scoring.assign(replace(right, objects=tuple(reversed(right.objects))), right) == list(right.objects)
    assert scoring.assign(replace(right, objects=()), right) == [None, None]
    near = moved(right, 0, 0.3, 0)
    assert matched(near, right, 0.1)[0][1] is None
    assert matched(near, right, 0.1)[1][1] == right.objects[1]


def test_equal_things_aside_are_not_assigned_crosswise() -> None:
    row = Scene(subjects=tuple(replace(RED, x=x) for x in (-1.2, 0.0, 1.2)), camera=Camera(extent=2.4))
    right = truth(row)
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        aside = replace(right, objects=tuple(moved(right, at, 0.3, 0.05 * at).objects[at] for at in order))
        assert scoring.relation_right(aside, row, EVERYTHING)


def test_ciede2000_of_published_pairs() -> None:
    # rows 1, 7, 14, 17, 25 of table 1 of Sharma, Wu and Dalal (2005)
    pairs = [
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
        ((50.0, -0.0010, 2.4900), (50.0, 0.0009, -2.4900), 4.8045),
        ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ]
    for first, second, expected in pairs:
        assert ciede2000_of(first, second) == pytest.approx(expected, abs=1e-4)
    assert ciede2000("#336699", "#336699") == 0.0
    assert ciede2000("#000000", "#ffffff") == pytest.approx(100.0, abs=0.1)


def test_intervals_hold_their_figure_and_shrink_with_trials() -> None:
    few, many = share([True] * 9 + [False]), share(([True] * 9 + [False]) * 50)
    assert few.value == many.value == 0.9
    assert few.low < many.low < 0.9 < many.high < few.high
    assert few.low == pytest.approx(0.5958, abs=1e-4)  # Wilson, 9 of 10
    assert share([True] * 10).high == 1.0
    assert math.isnan(share([]).value)
    around = mean([1.0, 2.0, 3.0, 4.0])
    assert around.low < around.value == 2.5 < around.high
    assert share_of_ceiling([True, False, True, False], [True, True, True, False]).value == pytest.approx(2 / 3)
    assert gap([True, False], [True, True]).value == -50.0
    none = share_of_ceiling([False] * 60, [True] * 57 + [False] * 3)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(share([False] * 60).high / 0.95)
    assert 0.05 < none.high < 0.08
    # Newcombe, 1998: example (a) of its table II, 56 of 70 less 48 of 80
    apart = gap([True] * 56 + [False] * 14, [True] * 48 + [False] * 32)
    assert apart.n == 150
    assert [apart.value, apart.low, apart.high] == pytest.approx([20.0, 5.24, 33.39], abs=0.01)
    sure = gap([True] * 30, [True] * 30)
    assert sure.low == -sure.high < 0


def test_regions_of_color_are_found_where_they_are() -> None:
    picture = render([PAIR], 128, 128)[0]
    red, blue = segmentation.place_of(picture, "red"), segmentation.place_of(picture, "blue")
    assert red is not None
    assert blue is not None
    assert red < 0.4
    assert blue > 0.6
    assert segmentation.place_of(picture, "yellow") is None
    assert segmentation.colors_in_order(picture, ["red", "blue"])
    assert not segmentation.colors_in_order(picture, ["blue", "red"])
    assert segmentation.row_colors(PAIR) == ["red", "blue"]
    assert segmentation.row_colors(replace(PAIR, subjects=(RED, replace(BLUE, color="white")))) is None


def test_a_color_fills_the_outline_of_its_thing_and_no_other() -> None:
    from licht.world.maps import render_maps

    picture, instance = render([PAIR], 128, 128)[0], render_maps([PAIR], 128, 128).instance_BHW[0]
    assert segmentation.agreement(picture, instance, 0, "red") > 0.8
    assert segmentation.agreement(picture, instance, 1, "red") < 0.1


def test_the_largest_region_is_connected() -> None:
    mask = torch.zeros(12, 12, dtype=torch.bool)
    mask[0:3, 0:3] = mask[6:10, 6:10] = True
    region = segmentation.largest_region(mask)
    assert int(region.sum()) == 16
    assert not region[:4, :4].any()
    assert not segmentation.largest_region(torch.zeros(4, 4, dtype=torch.bool)).any()


def test_words_must_be_exact() -> None:
    assert reads(["SUN"], ["SUN"])
    assert reads(["SUN", "SET"], ["SUN", "SET"])
    assert not reads(["SUNS", "ET"], ["SUN", "SET"])
    assert not reads(["SUNSET"], ["SUN", "SET"])
    assert not reads(["SUN", "SET"], ["SUNSET"])
    assert not reads(["SUNN"], ["SUN"])
    assert not reads([], ["SUN"])
    assert not reads(["SUN", "X"], ["SUN"])


def piece(text: str, left: float, top: float, height: float = 40) -> Piece:
    right, bottom = left + 60, top + height
    return Piece.of([[left, top], [right, top], [right, bottom], [left, bottom]], text)


def test_pieces_beside_one_another_are_a_line_and_those_below_are_not() -> None:
    assert lines_of([piece("set", 80, 14), piece("Sun", 10, 10)]) == ["SUNSET"]
    assert lines_of([piece("set", 10, 60), piece("Sun.", 12, 10)]) == ["SUN", "SET"]
    assert lines_of([piece("FOX", 10, 62), piece("OR", 80, 18, 24), piece("HARB", 10, 10)]) == ["HARBOR", "FOX"]
    assert lines_of([piece("SET", 10, 40), piece("SUN", 10, 8)]) == ["SUN", "SET"]  # they overlap a little
    assert lines_of([piece("-", 10, 80), piece("SUN", 10, 8)]) == ["SUN"]
    assert lines_of([]) == []


def test_floors_and_lights_are_categories() -> None:
    seen = truth(Scene(Floor("checkered", "black", "white"), light=Light("above", "high", "warm")))
    assert seen.picture["floor"] == "black and white"
    assert (seen.picture["light_side"], seen.picture["warmth"], seen.picture["text"]) == ("above", "warm", "none")
    assert isinstance(truth(PAIR).objects[0], SeenObject)


def test_attributes_are_counted_one_by_one_where_a_subject_has_them() -> None:
    seen = truth(PAIR)
    every = scoring.attributes_right(seen, PAIR, EVERYTHING)
    asked = [
        name
        for index, one in enumerate(seen.objects)
        for name in scoring.told_attributes(index, EVERYTHING)
        if name in one.attributes
    ]
    assert every == [True] * len(asked)
    painted = scoring.attributes_right(changed(seen, 0, material="metal"), PAIR, EVERYTHING)
    assert painted.count(False) == 1
    gone = scoring.attributes_right(replace(seen, objects=()), PAIR, EVERYTHING)
    assert gone == [False] * len(asked)
    assert scoring.attributes_right(seen, PAIR, set()) == []


@pytest.mark.parametrize("shape", ["sphere", "cube", "torus"])
def test_the_color_of_a_thing_is_that_of_its_pixels_and_not_of_the_floors(shape: Shape) -> None:
    scene = Scene(floor=Floor(color="teal"), subjects=(Thing(shape=shape, color="#c04020", size="large"),))
    picture = render([scene], 128, 128)[0]
    box = truth(scene).objects[0].box
    found = segmentation.shown_color(picture, box)
    mine = picture[render_maps([scene], 128, 128).instance_BHW[0] == 0].median(0).values.tolist()
    assert ciede2000(found, "#{:02x}{:02x}{:02x}".format(*mine)) < 4.0
    assert ciede2000(found, "#c04020") < ciede2000(found, "#20a0a0") / 3


def test_the_color_of_what_cannot_be_told_from_the_floor_is_the_floors() -> None:
    plain = torch.full((64, 64, 3), 90, dtype=torch.uint8)
    assert segmentation.shown_color(plain, (0.2, 0.2, 0.6, 0.6)) == "#5a5a5a"
    assert segmentation.shown_color(plain, (0.0, 0.0, 1.0, 1.0)) == "#5a5a5a"
    assert segmentation.shown_color(plain, (0.99, 0.99, 1.2, 1.2)) == "#5a5a5a"
