import pytest

from licht.core.errors import InvalidRequest
from licht.core.series import Story

STORY = {"characters": {"hero": {"description": "a small blue cube"}}, "frames": [{"prompt": "@hero on a gray floor"}]}


def test_a_character_may_be_words_alone() -> None:
    shot = Story.from_dict(STORY).shot(1, 7)
    assert (shot.prompt, shot.images, shot.seed) == ("a small blue cube on a gray floor", (), 7)


def test_pictures_are_counted_behind_the_words() -> None:
    characters = {"hero": {"description": "a small blue cube"}, "friend": {"images": ["a.png", "b.png"]}}
    story = Story.from_dict({"characters": characters, "frames": [{"prompt": "@hero beside @friend"}]})
    assert story.shot(1, 0).prompt == "a small blue cube beside friend (image 1, image 2)"


def test_a_character_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="neither images nor a description") as caught:
        Story.from_dict({**STORY, "characters": {"hero": {}}})
    assert caught.value.field == "characters.hero"


def test_objects_are_named_like_characters() -> None:
    objects = {"hat": {"images": ["hat.png"], "description": "a red hat"}}
    told = {**STORY, "objects": objects, "frames": [{"prompt": "@hero wears @hat"}]}
    shot = Story.from_dict(told).shot(1, 0)
    assert shot.prompt == "a small blue cube wears a red hat (image 1)"
    assert [image for image, _ in shot.images] == ["hat.png"]


@pytest.mark.parametrize(
    ("objects", "field", "message"),
    [
        ({"hero": {"description": "a hat"}}, "objects.hero", "a character is called so too"),
        ({"hat": {}}, "objects.hat", "neither images nor a description"),
        ({"image2": {"description": "a hat"}}, "objects.image2", "means a picture by its number"),
        ({"a hat": {"description": "a hat"}}, "objects.a hat", "a name begins with a letter"),
        ({"hat": {"strength": 5}}, "objects.hat.strength", "less than or equal to 4"),
    ],
)
def test_an_object_that_cannot_be_is_named(objects: dict[str, object], field: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        Story.from_dict({**STORY, "objects": objects})
    assert caught.value.field == field


def test_a_frame_may_be_a_structured_prompt() -> None:
    cat = {"description": 'a cat called "Tom"', "images": ["tom.png"]}
    frames = [
        {"prompt": '{"scene": "@cat on a sofa", "mood": "calm"}'},
        {"prompt": '{"scene": "@cat asleep", "style": "pencil"}'},
    ]
    story = Story.from_dict({"style": "flat colors", "characters": {"cat": cat}, "frames": frames})
    assert story.shot(1, 0).prompt == (
        '{"scene": "a cat called \\"Tom\\" (image 1) on a sofa", "style": "flat colors", "mood": "calm"}'
    )
    assert '"style": "pencil"' in story.shot(2, 0).prompt
    with pytest.raises(InvalidRequest, match="frame 1: the structured prompt is not JSON") as caught:
        Story.from_dict({"frames": [{"prompt": '{"scene": '}]})
    assert caught.value.field == "frames.0.prompt"
