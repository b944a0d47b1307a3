from collections.abc import Sequence

import pytest

from licht.core.errors import InvalidPrompt
from licht.core.request import Picture
from licht.upsample.ask import DRAW_SYSTEM, EDIT_SYSTEM, MAX_PICTURE_PX, upsample
from licht.upsample.beside import beside
from tests.support.pictures import picture, pixels


class Scripted:
    """Answers what it is told to, and remembers what it was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, int]] = []

    def answer(self, system: str, prompt: str, pictures: Sequence[Picture]) -> str:
        self.asked.append((system, prompt, len(pictures)))
        return self.answers.pop(0)


def test_the_answer_is_the_prompt() -> None:
    model = Scripted("A fat gray cat on a red sofa.")
    made = upsample("a cat", (), model)
    assert (made.prompt, made.asked, made.warnings) == ("A fat gray cat on a red sofa.", "a cat", ())
    assert model.asked == [(DRAW_SYSTEM, "a cat", 0)]


def test_with_references_an_instruction_is_asked_for() -> None:
    model = Scripted("Turn the cat of image 1 green.")
    assert upsample("@image1 in green", [picture()], model).prompt == "Turn the cat of image 1 green."
    assert model.asked == [(EDIT_SYSTEM, "@image1 in green", 1)]


@pytest.mark.parametrize(
    ("prompt", "first", "lost"),
    [
        ('a sign "OPEN"', 'A wooden sign "Open"', 'the text "OPEN"'),
        ('a sign "OPEN"', "A wooden sign OPEN", 'the text "OPEN"'),
        ("x", "", "the description itself"),
        ("x", "y" * 9000, "all brevity"),
        ("x", '{"scene": ', "the form of a prompt"),
        ("x", "as in @image1", "the form of a prompt"),
        ("x", "a cat\x00", "the form of a prompt"),
        ("x", "\x1b[1ma cat", "the form of a prompt"),
        ('{"scene": "x", "texts": [{"content": "SUN"}]}', "A scene", 'the text "SUN"'),
    ],
)
def test_what_was_lost_is_asked_for_once_more_and_then_the_original_is_used(prompt: str, first: str, lost: str) -> None:
    model = Scripted(first, 'A good one with "OPEN" and "SUN"')
    assert upsample(prompt, (), model).prompt == 'A good one with "OPEN" and "SUN"'
    assert model.asked[1][1] == f"{prompt}\n\nYour last answer lost {lost}. Keep it exactly as it stands in the prompt."
    model = Scripted(first, first)
    made = upsample(prompt, (), model)
    assert made.prompt == prompt
    assert made.warnings == (f"upsampling lost {lost} twice; the prompt was used as it is",)


def test_a_mention_of_a_reference_must_survive() -> None:
    model = Scripted("Use image 1.", "Use image 1 and image 2.")
    assert upsample("image 1 on image 2", [picture(), picture()], model).prompt == "Use image 1 and image 2."
    assert "lost image 2" in model.asked[1][1]


@pytest.mark.parametrize("answer", ["```\nA cat.\n```", "```text\nA cat.\n```", '"A cat."', "  A cat.\n"])
def test_wrappings_are_taken_off(answer: str) -> None:
    assert upsample("a cat", (), Scripted(answer)).prompt == "A cat."


def test_a_structured_prompt_may_stay_one() -> None:
    answer = '{"scene": "a cat on a sofa", "texts": [{"content": "SUN"}]}'
    assert upsample('{"scene": "a cat", "texts": [{"content": "SUN"}]}', (), Scripted(answer)).prompt == answer


@pytest.mark.parametrize("prompt", ['{"scene": ', "@image1"])
def test_a_broken_prompt_is_not_sent(prompt: str) -> None:
    model = Scripted()
    with pytest.raises(InvalidPrompt):
        upsample(prompt, (), model)
    assert model.asked == []


def test_references_are_put_side_by_side_on_white() -> None:
    row = beside([picture(64, 64), picture(80, 96, 1)])
    assert row.size == (144, 96)
    shown = Picture(*row.size, row.tobytes())
    assert (pixels(shown)[:64, :64] == pixels(picture(64, 64))).all()
    assert (pixels(shown)[64:, :64] == 255).all()
    large = beside([picture(2000, 1000)])
    assert large.width * large.height <= MAX_PICTURE_PX * 1.01
    assert abs(large.width / large.height - 2) < 0.01
