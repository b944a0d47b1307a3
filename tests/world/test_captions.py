import json
import re
from dataclasses import replace

import pytest

from licht.core.errors import InvalidRequest
from licht.core.prompt import StructuredPrompt
from licht.world import vocabulary as v
from licht.world.captions import STYLES, Caption, caption, styles_for
from licht.world.labels import labels
from licht.world.phrases import PATTERN_NOUNS, SHAPE_WORDS
from licht.world.sample import KINDS, Kind, sample_kind, sample_scene
from licht.world.scene import Camera, Floor, Light, Scene, Thing
from licht.world.structured import structured_prompt
from licht.world.templates import ALL
from licht.world.words import Split

WORDS_OF_SIZE = {"small": ("small", "little"), "large": ("large", "big")}
WORDS_OF_MATERIAL = {"matte": ("matte",), "shiny": ("shiny", "glossy"), "metal": ("metal", "metallic")}


def _every(count: int = 12, split: Split = "train") -> list[tuple[Scene, Caption]]:
    found = []
    for kind in KINDS:
        for index in range(count):
            scene = sample_scene(kind, 31, index, split=split)
            found += [(scene, caption(scene, 31, index, split=split, style=style)) for style in styles_for(scene)]
    return found


EVERY = _every()


def test_the_same_arguments_give_the_same_caption_and_others_another() -> None:
    scene = sample_scene("two", 1, 1)
    assert caption(scene, 1, 5) == caption(scene, 1, 5)
    assert len({caption(scene, 1, index).text for index in range(40)}) > 30


def test_every_style_is_used() -> None:
    assert {each.style for _, each in EVERY} == set(STYLES)


def test_an_unsuitable_style_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="short"):
        caption(Scene(), 0, 0, style="layout")


def test_words_are_lower_case_and_what_is_printed_is_quoted() -> None:
    for scene, told in EVERY:
        lines = () if scene.lettering is None else scene.lettering.lines
        bare = re.sub(r'"[A-Z0-9]+"', "", told.text)
        assert bare == bare.lower()
        for line in lines:
            assert f'"{line}"' in told.text
        assert "{" not in told.text or told.style == "json"
        assert "  " not in told.text
        assert not re.search(r"\ba [aeiou]", told.text), told.text


def test_what_is_stated_of_things_is_in_the_words() -> None:
    checked = 0
    for scene, told in EVERY:
        for index, subject in enumerate(scene.subjects):
            if not isinstance(subject, Thing) or told.style == "json":
                continue
            words: list[tuple[str, tuple[str, ...]]] = [
                ("color", (subject.color,)),
                ("size", WORDS_OF_SIZE[subject.size]),
                ("material", WORDS_OF_MATERIAL[subject.material]),
                ("shape", (*SHAPE_WORDS[subject.shape], "ring")),
            ]
            for name, choices in words:
                if f"subjects[{index}].{name}" in told.stated:
                    assert any(re.search(rf"{re.escape(word)}", told.text) for word in choices), told.text
                    checked += 1
    assert checked > 500


def test_what_is_not_there_is_only_named_to_deny_it() -> None:
    for scene, told in EVERY:
        if told.style in {"json", "negation"} or any(not isinstance(each, Thing) for each in scene.subjects):
            continue
        shown = {c for s in scene.subjects if isinstance(s, Thing) for c in (s.color, s.second)} | {
            scene.floor.color,
            scene.floor.second,
        }
        if scene.lettering is not None:
            shown |= {scene.lettering.color, scene.lettering.board}
        for color in v.COLORS:
            if color not in shown:
                assert not re.search(rf"\b{color}\b", told.text), told.text
        shapes = {s.shape for s in scene.subjects if isinstance(s, Thing)}
        for shape in ("sphere", "cube", "cylinder", "cone", "capsule"):
            if shape not in shapes:
                assert not re.search(rf"\b{shape}\b", told.text), told.text


def test_pairs_are_told_as_they_stand() -> None:
    scene = Scene(subjects=(Thing("sphere", "red", x=-0.8), Thing("cube", "blue", x=0.8)), camera=Camera(extent=1.8))
    mirrored = replace(scene, subjects=(replace(scene.subjects[0], x=0.8), replace(scene.subjects[1], x=-0.8)))
    ball, box = r"(?:sphere|ball)", r"(?:cube|box)"
    left_right = [
        rf"{ball} (?:to the )?left of [^,]*{box}",
        rf"{box} (?:to the )?right of [^,]*{ball}",
        rf"{ball} on the left and [^,]*{box} on the right",
        rf"{box} on the right and [^,]*{ball} on the left",
        rf"on the left [^,]*{ball}, on the right [^,]*{box}",
        rf"to the left of [^,]*{box}, [^,]*{ball}",
        rf"to the right of [^,]*{ball}, [^,]*{box}",
    ]
    seen = set()
    splits: tuple[Split, ...] = ("train", "test")
    for index in range(120):
        for split in splits:
            text = caption(scene, 3, index, split=split, style="short").text
            matching = [step for step, pattern in enumerate(left_right) if re.search(pattern, text)]
            assert matching, text
            seen.update(matching)
            other = caption(mirrored, 3, index, split=split, style="short").text
            assert not any(re.search(pattern, other) for pattern in left_right), other
    assert seen == set(range(len(left_right)))


def test_sides_are_told_as_they_are_in_the_picture() -> None:
    told_of = 0
    for index in range(60):
        scene = sample_scene("layout", 4, index)
        if "layout" not in styles_for(scene) or len(scene.subjects) != 1:
            continue
        text = caption(scene, 4, index, style="layout").text
        center = labels(scene, 128, 128)[0].center[0]
        side = "in the middle" if 0.33 <= center <= 0.67 else "on the left" if center < 0.5 else "on the right"
        assert side in text
        told_of += 1
    assert told_of > 5


def test_what_is_unusual_is_always_told() -> None:
    for scene, told in EVERY:
        if scene.camera.distance != "medium":
            assert "camera.distance" in told.stated
        if scene.camera.height != "eye level":
            assert "camera.height" in told.stated
        if scene.light.spot != "none":
            assert "light.spot" in told.stated or told.style == "json"


def test_denials_are_true() -> None:
    denied = set()
    for scene, told in ((scene, told) for scene, told in EVERY if told.style == "negation"):
        things = [each for each in scene.subjects if isinstance(each, Thing)]
        for what in told.forbidden:
            name, _, value = what.partition(":")
            denied.add(name)
            if name == "text":
                assert scene.lettering is None
            elif name == "shape":
                assert value not in {each.shape for each in things}
                assert value in told.text
            elif name == "color":
                shown = [c for each in things for c in (each.color, each.second) if c is not None]
                assert value not in {v.nearest_name(v.hex_of(color)) for color in shown}
                assert value not in {scene.floor.color, scene.floor.second}
            elif name == "pattern":
                assert value not in {each.pattern for each in things} | {scene.floor.kind}
                assert PATTERN_NOUNS[value] in told.text
        if "count" in told.stated:
            assert re.search(r"\b(an object|two objects|three objects)\b", told.text)
    assert {"text", "else", "shape", "color", "pattern", "hat"} == denied


def test_sentences_of_the_first_trial_are_still_said() -> None:
    thing = Thing("sphere", "red", "large", "shiny")
    light = Light("left", "high", "neutral")
    one = Scene(Floor(), (thing,), light)
    two = Scene(Floor(), (replace(thing, x=-0.8), Thing("cube", "blue", "small", x=0.7)), light, Camera(extent=1.7))
    ones = {caption(one, 0, index, style="short", full=True).text for index in range(900)}
    assert "a large shiny red sphere on a gray floor, light from the left" in ones
    twos = {caption(two, 0, index, style="short", full=True).text for index in range(2500)}
    for middle in ("to the left of a small matte blue cube", "on the left and a small matte blue cube on the right"):
        assert f"a large shiny red sphere {middle} on a gray floor, light from the left" in twos


def _vocabulary(texts: list[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"[a-z]+", re.sub(r"\{[a-z]+\}", " ", text))}


def test_test_templates_are_new_but_use_no_new_word() -> None:
    train = [text for table in ALL for templates, _ in table.values() for text in templates]
    test = [text for table in ALL for _, templates in table.values() for text in templates]
    assert len(test) > 50
    for table in ALL:
        for name, (seen, unseen) in table.items():
            assert not set(seen) & set(unseen), name
            assert seen
    assert _vocabulary(test) <= _vocabulary(train)


def test_test_templates_are_said_in_the_test_split_only() -> None:
    scene = Scene(subjects=(Thing("cube", "red"),))
    train = " ".join(caption(scene, 0, index, style="prose").text for index in range(300))
    test = " ".join(caption(scene, 0, index, style="prose", split="test").text for index in range(300))
    assert "in the picture there is" in test
    assert "in the picture there is" not in train


@pytest.mark.parametrize("kind", KINDS)
def test_structured_prompts_are_valid_and_say_everything(kind: Kind) -> None:
    for index in range(10):
        scene = sample_scene(kind, 12, index)
        data = structured_prompt(scene)
        prompt = StructuredPrompt.from_dict(data)
        assert prompt.unknown_fields() == []
        assert json.loads(prompt.to_json()) == data
        assert len(prompt.subjects) == len(scene.subjects)
        printed = () if scene.lettering is None else scene.lettering.lines
        assert tuple(text.content for text in prompt.texts) == printed
        for read, subject in zip(prompt.subjects, scene.subjects, strict=True):
            if isinstance(subject, Thing):
                assert read.type == subject.shape
                assert subject.color in read.colors


def test_json_captions_are_valid_structured_prompts() -> None:
    for _, told in EVERY:
        if told.style == "json":
            assert StructuredPrompt.from_json(told.text).unknown_fields() == []


def test_captions_are_short_enough_for_a_small_text_tower() -> None:
    def pieces(text: str) -> int:
        return len(re.findall(r"[a-z]+|[A-Z0-9]|[^\sA-Za-z0-9]", text))

    lengths = []
    for index in range(600):
        scene = sample_scene(sample_kind(2, index), 2, index)
        told = caption(scene, 2, index)
        if told.style != "json":
            lengths.append(pieces(told.text))
    lengths.sort()
    assert lengths[len(lengths) // 2] < 40
    assert lengths[-1] < 96
