"""What a worker makes of the built-in model: candidates, prompts written out, finishes, previews."""

import io
from collections.abc import Sequence

import pytest
from PIL import Image

import licht
from licht.core.errors import EndpointFailed, LichtError
from licht.core.request import ImageRequest, Picture, Progress, Reference
from licht.core.sizes import Size
from licht.generate import Model
from licht.service.worker.drawing import Drawn, Manner, ModelDrawer, PreviewDrawn


@pytest.fixture(scope="module")
def model() -> Model:
    return licht.load("nano", policy="off")


class Last:
    """Likes the last picture best, and remembers what it was shown."""

    name = "last"

    def __init__(self, wrong: bool = False) -> None:
        self.wrong = wrong
        self.shown: list[tuple[str, int]] = []

    def score(self, prompt: str, pictures: Sequence[Picture], references: Sequence[Reference]) -> Sequence[float]:
        self.shown.append((prompt, len(pictures)))
        return [0.0] if self.wrong else [float(number) for number in range(len(pictures))]


class Writer:
    """Answers with the same words, or not at all."""

    def __init__(self, words: str | None) -> None:
        self.words = words

    def answer(self, system: str, prompt: str, pictures: Sequence[Picture]) -> str:
        if self.words is None:
            raise EndpointFailed("nobody is at home")
        return self.words


def request(seeds: tuple[int, ...] = (3,), previews: bool = False) -> ImageRequest:
    return ImageRequest("a red sphere", seeds, size=Size(64, 64), steps=1, previews=previews)


def drawn(drawer: ModelDrawer, asked: ImageRequest, manner: Manner | None = None) -> Drawn:
    events = list(drawer.draw(asked, manner or Manner()))
    last = events[-1]
    assert isinstance(last, Drawn)
    assert not any(isinstance(event, Drawn) for event in events[:-1])
    return last


def test_the_ranker_chooses_between_candidates(model: Model) -> None:
    ranker = Last()
    best = drawn(ModelDrawer(model, ranker), request((3, 4, 5)))
    assert (best.seed, best.candidates, ranker.shown) == (5, 3, [("a red sphere", 3)])
    alone = drawn(ModelDrawer(model), request((5,)))
    assert best.data == alone.data
    assert (alone.candidates, alone.warnings) == (1, ())


def test_without_a_ranker_one_candidate_is_drawn_and_said(model: Model) -> None:
    only = drawn(ModelDrawer(model), request((3, 4)))
    assert (only.seed, only.candidates) == (3, 1)
    assert "no ranker" in only.warnings[0]


def test_a_ranker_that_miscounts_is_a_defect(model: Model) -> None:
    with pytest.raises(LichtError, match="gave 1 scores for 2 pictures"):
        drawn(ModelDrawer(model, Last(wrong=True)), request((3, 4)))


def test_progress_over_candidates_never_runs_backwards(model: Model) -> None:
    events = ModelDrawer(model, Last()).draw(request((3, 4)), Manner())
    shares = [each.done / each.total for each in events if isinstance(each, Progress) and each.stage == "denoise"]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_prompts_are_written_out_where_that_is_wanted(model: Model) -> None:
    drawer = ModelDrawer(model, upsampler=Writer("A shiny red sphere in soft light."))
    long = drawn(drawer, request(), Manner(upsample=True))
    assert (long.prompt, long.prompt_upsampled) == ("A shiny red sphere in soft light.", True)
    short = drawn(drawer, request(), Manner(upsample=False))
    assert (short.prompt, short.prompt_upsampled) == ("a red sphere", False)
    assert long.data != short.data


def test_a_language_model_that_fails_costs_no_picture(model: Model) -> None:
    still = drawn(ModelDrawer(model, upsampler=Writer(None)), request(), Manner(upsample=True))
    assert (still.prompt, still.prompt_upsampled) == ("a red sphere", False)
    assert still.warnings == ("the prompt was used as it is: nobody is at home",)


def test_a_finish_changes_the_picture(model: Model) -> None:
    plain, film = (drawn(ModelDrawer(model), request(), Manner(finish=name)) for name in ("none", "film"))
    assert plain.data != film.data


def test_previews_are_small_files(model: Model) -> None:
    events = list(ModelDrawer(model).draw(request(previews=True), Manner("WEBP")))
    shown = [event for event in events if isinstance(event, PreviewDrawn)]
    assert [(event.step, event.total) for event in shown] == [(1, 1)]
    with Image.open(io.BytesIO(shown[0].data)) as image:
        assert (image.format, image.size) == ("PNG", (shown[0].width, shown[0].height))
