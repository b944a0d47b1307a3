"""What a worker makes of the built-in model: candidates, prompts written out, finishes, previews."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import licht
from licht.core.errors import EndpointFailed, InvalidPrompt, LichtError
from licht.core.request import ImageRequest, Picture, Progress, Reference
from licht.core.sizes import Size
from licht.engine.ranker import LikelihoodRanker
from licht.generate import Model
from licht.safety import provenance
from licht.safety.policy import parse_policy
from licht.service.worker.drawing import Drawn, Manner, ModelDrawer, PreviewDrawn
from licht.service.worker.tasks import payload_of
from licht.service.worker.writing import TurnByTurn


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
    assert (best.seed, best.candidates, best.ranker, ranker.shown) == (5, 3, "last", [("a red sphere", 3)])
    alone = drawn(ModelDrawer(model), request((5,)))
    pixels = [Image.open(io.BytesIO(each.data)).tobytes() for each in (best, alone)]
    assert pixels[0] == pixels[1]
    assert (alone.candidates, alone.ranker, alone.warnings) == (1, None, ())
    # who looks at the file sees how it was chosen; the rest of the metadata is the same
    assert b"last" in best.data
    assert b"last" not in alone.data


def test_the_model_itself_can_choose(model: Model) -> None:
    best = drawn(ModelDrawer(model, LikelihoodRanker(model.engine)), request((3, 4)))
    assert (best.candidates, best.ranker) == (2, "likelihood")


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
    assert still.warnings == ("the prompt was used as it is: the language model does not answer",)


def test_a_language_model_of_the_worker_takes_turns_with_the_weights(model: Model) -> None:
    said: list[str] = []

    class Heard(Writer):
        def answer(self, system: str, prompt: str, pictures: Sequence[Picture]) -> str:
            said.append("answer")
            return super().answer(system, prompt, pictures)

    turns = TurnByTurn(Heard("A red sphere in the sun."), lambda: said.append("close"), lambda: said.append("room"))
    best = drawn(ModelDrawer(model, upsampler=turns), request(), Manner(upsample=True))
    assert (best.prompt, said) == ("A red sphere in the sun.", ["room", "answer", "close"])
    drawn(ModelDrawer(model, upsampler=turns), request(), Manner(upsample=False))
    assert said == ["room", "answer", "close"]


def test_what_the_door_refuses_is_shown_to_no_language_model(model: Model) -> None:
    shown: list[str] = []

    class Heard(Writer):
        def answer(self, system: str, prompt: str, pictures: Sequence[Picture]) -> str:
            shown.append(prompt)
            return super().answer(system, prompt, pictures)

    with pytest.raises(InvalidPrompt, match="control characters"):
        drawn(ModelDrawer(model, upsampler=Heard("x")), replace(request(), prompt="a\x00b"), Manner(upsample=True))
    assert shown == []


def test_the_quality_of_a_file_is_the_callers(model: Model) -> None:
    small, large = (drawn(ModelDrawer(model), request(), Manner("JPEG", quality=quality)) for quality in (10, 100))
    usual, same = (drawn(ModelDrawer(model), request(), Manner("JPEG", quality=quality)) for quality in (None, 95))
    assert len(small.data) < len(usual.data) < len(large.data)
    assert usual.data == same.data


def test_the_door_is_the_callers_and_the_mark_holds_the_job(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LICHT_TRUST", str(tmp_path / "trust"))
    drawer = ModelDrawer(model.under(parse_policy("default")))
    job_id = "0b5cbb4e-7a0e-4b0e-9c39-0123456789ab"
    signed = drawn(drawer, request(), Manner(payload=payload_of(job_id)))
    assert provenance.read(signed.data, "PNG").watermark_payload == int(job_id.replace("-", "")[-16:], 16)
    bare = drawn(drawer, request(), Manner(policy="off", payload=payload_of(job_id)))
    assert provenance.read(bare.data, "PNG").state == "none"


def test_a_finish_changes_the_picture(model: Model) -> None:
    plain, film = (drawn(ModelDrawer(model), request(), Manner(finish=name)) for name in ("none", "film"))
    assert plain.data != film.data


def test_previews_are_small_files(model: Model) -> None:
    events = list(ModelDrawer(model).draw(request(previews=True), Manner("WEBP")))
    shown = [event for event in events if isinstance(event, PreviewDrawn)]
    assert [(event.step, event.total) for event in shown] == [(1, 1)]
    with Image.open(io.BytesIO(shown[0].data)) as image:
        assert (image.format, image.size) == ("PNG", (shown[0].width, shown[0].height))
