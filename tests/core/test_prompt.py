import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from licht.core.errors import InvalidPrompt
from licht.core.prompt import (
    PromptStyle,
    SettledPrompt,
    StructuredPrompt,
    image_mentions,
    json_schema,
    parse_prompt_text,
    quoted_texts,
    role_words,
    settle_prompt,
)
from licht.core.request import Picture, Reference, Role

FULL = {
    "scene": "a table in a studio",
    "subjects": [
        {"type": "cat", "description": "a gray cat", "pose": "sitting", "position": "left", "action": "yawning"},
        {"type": "ball", "colors": ["red", "#00FF00"]},
    ],
    "style": "product photo",
    "color_palette": ["#FF0000", "#00ff88"],
    "lighting": "soft light from the left",
    "mood": "calm",
    "background": "a beige wall",
    "composition": "rule of thirds",
    "camera": {
        "angle": "low angle",
        "distance": "close-up",
        "focus": "sharp",
        "lens": "prime lens",
        "lens-mm": 85,
        "f-number": "f/2.8",
        "ISO": 200,
        "depth_of_field": "shallow",
    },
    "effects": ["film grain"],
    "texts": [{"content": "SUN", "font": "serif", "place": "at the top", "size": "large", "color": "#000000"}],
}


def test_reads_every_field_and_writes_it_again() -> None:
    prompt = StructuredPrompt.from_json(json.dumps(FULL))
    assert prompt.subjects[1].colors == ("red", "#00ff00")
    assert prompt.color_palette == ("#ff0000", "#00ff88")
    assert prompt.camera is not None
    assert (prompt.camera.lens_mm, prompt.camera.f_number, prompt.camera.iso) == (85, "f/2.8", 200)
    assert prompt.unknown_fields() == []
    expected = json.loads(json.dumps(FULL).replace("#FF0000", "#ff0000").replace("#00FF00", "#00ff00"))
    assert json.loads(prompt.to_json()) == expected
    assert StructuredPrompt.from_json(prompt.to_json()) == prompt


def test_json_is_canonical() -> None:
    shuffled = (
        '{"mood":"calm",  "zeta": {"b": 1, "a": null}, "alpha": 2, "scene": " a cat ", "style": null, "effects": []}'
    )
    text = '{"scene": "a cat", "mood": "calm", "alpha": 2, "zeta": {"b": 1}}'
    assert StructuredPrompt.from_json(shuffled).to_json() == text
    assert StructuredPrompt.from_json(text).to_json() == text
    assert StructuredPrompt(scene="Käse").to_json() == '{"scene": "Käse"}'


def test_prose_says_everything_once() -> None:
    prose = StructuredPrompt.from_dict(FULL).to_prose()
    assert prose == (
        "A table in a studio. A gray cat, sitting, yawning, left. Ball, in red and #00ff00. "
        "A beige wall in the background. Lit by soft light from the left. "
        'The text "SUN", at the top, serif font, large, #000000. Composition: rule of thirds. '
        "Camera: low angle, close-up, sharp, prime lens, 85 mm, f/2.8, ISO 200, shallow depth of field. "
        "Effects: film grain. Colors: #ff0000, #00ff88. Style: product photo. Mood: calm."
    )


def test_unknown_fields_are_kept_listed_and_said() -> None:
    data = {
        "scene": "rain",
        "weather": {"kind": "rain", "wind": ["cold", "strong"], "snow": False},
        "subjects": [{"type": "cat"}, {"type": "dog", "age": 3}],
        "camera": {"angle": "low", "shutter": "1/60"},
        "texts": [{"content": "A", "weight": "bold"}],
    }
    prompt = StructuredPrompt.from_dict(data)
    assert prompt.unknown_fields() == ["subjects.1.age", "camera.shutter", "texts.0.weight", "weather"]
    assert json.loads(prompt.to_json()) == data
    prose = prompt.to_prose()
    for said in ("Dog, age 3.", "shutter 1/60", "weight bold", "Weather: kind rain, snow no, wind cold, strong."):
        assert said in prose


def test_a_single_text_stands_for_a_list_of_one() -> None:
    prompt = StructuredPrompt.from_dict(
        {"effects": "grain", "color_palette": "#AABBCC", "subjects": [{"colors": "red"}]}
    )
    assert prompt.to_json() == '{"subjects": [{"colors": ["red"]}], "color_palette": ["#aabbcc"], "effects": ["grain"]}'


@pytest.mark.parametrize(
    ("data", "field", "part"),
    [
        ({"color_palette": ["#ff0000", "#f00"]}, "color_palette.1", "#rrggbb"),
        ({"color_palette": ["red"]}, "color_palette.0", "#rrggbb"),
        ({"subjects": [{"type": "cat"}, {"colors": ["#12345"]}]}, "subjects.1.colors.0", "#rrggbb"),
        ({"subjects": "a cat"}, "subjects", "list"),
        ({"subjects": ["a cat"]}, "subjects.0", "object"),
        ({"scene": 3}, "scene", "text"),
        ({"camera": "low"}, "camera", "object"),
        ({"camera": {"ISO": True}}, "camera.ISO", "text or a number"),
        ({"camera": {"f-number": [2]}}, "camera.f-number", "text or a number"),
        ({"texts": [{"font": "serif"}]}, "texts.0.content", "missing"),
        ({"texts": [{"content": " "}]}, "texts.0.content", "empty"),
        ({"scene": "a\ud800b"}, "scene", "surrogate"),
    ],
)
def test_a_fault_points_at_its_field(data: dict[str, object], field: str, part: str) -> None:
    with pytest.raises(InvalidPrompt) as caught:
        StructuredPrompt.from_dict(data)
    assert caught.value.field == field
    assert caught.value.message.startswith(f"{field}: ")
    assert part in caught.value.message
    assert "pydantic" not in caught.value.message.lower()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('{"scene": "a",}', "line 1, column"),
        ('{"scene": ', "not JSON"),
        ('["a"]', "JSON object"),
        ("3", "JSON object"),
        ("{}", "empty"),
        ('{"scene": null, "extra": {"a": []}}', "empty"),
        ('{"scene": "a", "scene": "b"}', "twice"),
        ('{"age": NaN}', "NaN"),
        ('{"age": ' + "9" * 5000 + "}", "beyond all use"),
        ('{"a": ' * 200_000, "beyond all use"),
        ('{"a": ' * 100 + "1" + "}" * 100, "flatten"),
    ],
)
def test_broken_text_is_one_clear_line(text: str, part: str) -> None:
    with pytest.raises(InvalidPrompt) as caught:
        StructuredPrompt.from_json(text)
    assert part in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("text", ["a red sphere", "", "{a|b} sphere", '["a"]', "3", 'say "{}"'])
def test_prose_is_no_structured_prompt(text: str) -> None:
    assert parse_prompt_text(text) is None


def test_a_json_object_is_a_structured_prompt() -> None:
    assert parse_prompt_text('\n {"scene": "a"} ') == StructuredPrompt(scene="a")
    for text, said in (
        ('{ "scene": "a"', "not JSON"),
        ("{'scene': 'a'}", "not JSON: .*double quotes"),
        ('[{"scene": "a"}]', "must be a JSON object"),
    ):
        with pytest.raises(InvalidPrompt, match=said):
            parse_prompt_text(text)


def test_schema_names_what_the_json_names() -> None:
    schema = json_schema()
    assert list(schema["properties"]) == list(FULL)
    camera = schema["$defs"]["Camera"]["properties"]
    assert {"f-number", "ISO", "lens-mm"} <= set(camera)
    assert schema["properties"]["color_palette"]["items"]["pattern"] == "^#[0-9a-fA-F]{6}$"


@pytest.mark.parametrize(
    ("text", "count", "found"),
    [
        ("put the cat of @image1 onto @image_2", 2, (0, 1)),
        ("image 2 in the light of Image 1, then image 2 again", 2, (1, 0)),
        ("@Image1, @image_1 and image 1", 1, (0,)),
        ("image 3 of the series, image 0", 2, ()),
        ("image 10 beside image 1", 10, (9, 0)),
        ("my image 1a, reimage 1, mail@image1, images 1", 1, ()),
        ("image " + "9" * 6000, 3, ()),
        ("no mention", 0, ()),
    ],
)
def test_mentions(text: str, count: int, found: tuple[int, ...]) -> None:
    assert image_mentions(text, count) == found


@pytest.mark.parametrize(
    ("text", "count"), [("@image1", 0), ("@image_3", 2), ("@image0", 2), ("@image" + "1" * 6000, 2)]
)
def test_a_mention_without_its_reference_is_an_error(text: str, count: int) -> None:
    with pytest.raises(InvalidPrompt, match="reference") as caught:
        image_mentions(text, count)
    assert caught.value.field == "prompt"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
_NAMES = st.sampled_from(sorted(FULL)) | st.text(max_size=6)


@given(st.dictionaries(_NAMES, _JSON, max_size=5))
def test_any_object_is_read_or_refused_and_the_canonical_text_is_stable(data: dict[str, object]) -> None:
    try:
        prompt = StructuredPrompt.from_json(json.dumps(data))
    except InvalidPrompt:
        return
    text = prompt.to_json()
    again = StructuredPrompt.from_json(text)
    assert again.to_json() == text
    assert again.to_prose() == StructuredPrompt.from_json(text).to_prose()


PIXELS = Picture(64, 64, bytes(64 * 64 * 3))


def references(*roles: Role | None) -> list[Reference]:
    return [Reference(PIXELS, role=role) for role in roles]


@pytest.mark.parametrize(
    "text", ["a  red sphere. ", "", "image 1 in the light of image 2", "image 7", '"a" {b}', "ä\n"]
)
@pytest.mark.parametrize("style", PromptStyle)
def test_prose_without_roles_stays_byte_for_byte(text: str, style: PromptStyle) -> None:
    assert settle_prompt(text, references(None, None), style) == SettledPrompt(text)


def test_mentions_become_the_words_that_the_models_know() -> None:
    settled = settle_prompt("@image_2 like @Image1, image 1", references(None, None), PromptStyle.PROSE)
    assert settled.text == "image 2 like image 1, image 1"
    with pytest.raises(InvalidPrompt, match="@image3"):
        settle_prompt("a @image3", references(None, None), PromptStyle.PROSE)
    with pytest.raises(InvalidPrompt, match="@image3"):
        settle_prompt('{"scene": "a @image3"}', references(None), PromptStyle.JSON)


def test_every_role_is_worded_with_the_number_of_its_reference() -> None:
    settled = settle_prompt("A cat", references(None, Role.STYLE, Role.POSE), PromptStyle.PROSE)
    assert settled.text == (
        "A cat. Take only the style from image 2, not what it shows. Take the pose from image 3, not who is in it."
    )
    for text, read in (("a cat!", "a cat! "), ('the word "SUN" ', 'the word "SUN". '), ("", "")):
        given = settle_prompt(text, references(Role.PALETTE), PromptStyle.PROSE).text
        assert given == read + "Take only the colors from image 1."
    said = {role_words(references(role))[0] for role in Role}
    assert len(said) == len(Role)
    assert all(re.search("[Ii]mage 1", words) for words in said)


def test_a_structured_prompt_is_rendered_by_what_the_model_prefers() -> None:
    text = '{"weather": "rain", "scene": "@image1 at night"}'
    warnings = ("weather is no field of the structured prompt; it was kept as it is",)
    given = references(Role.BACKGROUND)
    assert settle_prompt(text, given, PromptStyle.PROSE) == SettledPrompt(
        "Image 1 at night. Weather: rain. Take the background from image 1.", warnings
    )
    as_json = settle_prompt(text, given, PromptStyle.JSON)
    assert as_json.warnings == warnings
    assert as_json.text == (
        '{"scene": "image 1 at night", "reference_roles": ["Take the background from image 1."], "weather": "rain"}'
    )
    assert settle_prompt('{"scene":"x"}', references(None), PromptStyle.JSON).text == '{"scene": "x"}'


def test_roles_cannot_be_given_twice() -> None:
    text = '{"scene": "x", "reference_roles": "mine"}'
    assert settle_prompt(text, references(None), PromptStyle.JSON).text == text
    with pytest.raises(InvalidPrompt, match="use one of the two") as caught:
        settle_prompt(text, references(Role.STYLE), PromptStyle.JSON)
    assert caught.value.field == "reference_roles"


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ('a sign "OPEN" and „Zu“ and “Now”, "OPEN" again', ("OPEN", "Zu", "Now")),
        ("it's 5' wide", ()),
        ('12" wide', ()),
        ('" "', ()),
        (json.dumps({"scene": 'a "big" sign', "texts": [{"content": 'say "x"'}, {"content": "SUN"}]}), None),
    ],
)
def test_texts_to_be_written_are_found(text: str, quoted: tuple[str, ...] | None) -> None:
    found = quoted_texts(text)
    assert found == quoted if quoted is not None else {'say "x"', "SUN", "big"} <= set(found)
