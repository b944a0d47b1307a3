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
