import json
from dataclasses import replace

import pytest

from licht.core.errors import InvalidRequest
from licht.world.sample import KINDS, sample_kind, sample_scene
from licht.world.scene import (
    Camera,
    Character,
    Floor,
    Lettering,
    Light,
    Scene,
    Thing,
    scene_from_dict,
    scene_from_json,
    scene_to_dict,
    scene_to_json,
)


@pytest.mark.parametrize("kind", KINDS)
def test_json_goes_both_ways(kind: str) -> None:
    for index in range(6):
        scene = sample_scene(kind, 1, index)  # type: ignore[arg-type] # KINDS are kinds
        assert scene_from_json(scene_to_json(scene)) == scene
        assert scene_from_dict(json.loads(json.dumps(scene_to_dict(scene)))) == scene


def test_equal_scenes_have_equal_json_and_others_do_not() -> None:
    scene = sample_scene("two", 1, 2)
    assert scene_to_json(scene) == scene_to_json(replace(scene))
    assert scene_to_json(scene) != scene_to_json(replace(scene, light=replace(scene.light, spot="left")))


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"floor": {"kind": "marble"}}, "floor.kind"),
        ({"floor": {"color": "red"}}, "floor.color"),
        ({"floor": {"kind": "checkered", "color": "gray", "second": "teal"}}, "floor.color"),
        ({"light": {"side": "below"}}, "light.side"),
        ({"camera": {"extent": 99}}, "camera.extent"),
        ({"camera": {"extent": "wide"}}, "camera"),
        ({"camera": {"zoom": 1}}, "camera"),
        ({"subjects": [{"type": "thing", "shape": "pyramid", "color": "red"}]}, "shape"),
        ({"subjects": [{"type": "thing", "shape": "cube", "color": "#12"}]}, "color"),
        ({"subjects": [{"type": "thing", "shape": "cube"}]}, "subjects[0]"),
        ({"subjects": [{"type": "ghost"}]}, "subjects[0].type"),
        ({"subjects": "cube"}, "subjects"),
        ({"lettering": {"lines": ["lower"]}}, "lettering.lines"),
        ({"lettering": {"lines": ["NINELETTER"]}}, "lettering.lines"),
        ({"lettering": {"lines": ["A", "B", "C"]}}, "lettering.lines"),
        ({"lettering": {"lines": [3]}}, "lettering"),
        ({"aspect": 3.0}, "aspect"),
        ({"sky": "blue"}, "scene"),
    ],
)
def test_bad_descriptions_name_the_field(data: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        scene_from_dict(data)
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1]", "{", "null"])
def test_other_text_is_no_scene(text: str) -> None:
    with pytest.raises(InvalidRequest):
        scene_from_json(text)


def test_things_stand_only_on_what_carries() -> None:
    ball = Thing("sphere", "red", on=0)
    with pytest.raises(InvalidRequest, match=r"subjects\[1\].on"):
        Scene(subjects=(Thing("cone", "blue"), ball))
    assert Scene(subjects=(Thing("cube", "blue"), ball)).subjects[1] == ball


def test_patterns_hats_and_boards_need_their_colours() -> None:
    for broken in (
        lambda: Thing("cube", "red", pattern="striped"),
        lambda: Thing("cube", "red", second="blue"),
        lambda: Character("round", "red", "pink", hat="top"),
        lambda: Character("round", "red", "pink", hat_color="blue"),
        lambda: Lettering(("A",), place="sign"),
        lambda: Lettering(("A",), place="top", board="white"),
        lambda: Floor("plain", "gray", "white"),
    ):
        with pytest.raises(InvalidRequest):
            broken()


def test_defaults_are_a_valid_empty_scene() -> None:
    assert Scene() == Scene(Floor(), (), Light(), Camera(), None, 1.0)


def test_kinds_are_mixed_by_their_shares() -> None:
    drawn = [sample_kind(0, index) for index in range(2000)]
    assert set(drawn) == set(KINDS)
    assert 0.11 < drawn.count("two") / 2000 < 0.17
