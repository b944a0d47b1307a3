import re
from typing import get_args

import pytest

from licht.core.errors import InvalidRequest
from licht.core.prompt import image_mentions
from licht.world.heldout import shows_held_out
from licht.world.layout import is_clear
from licht.world.pictures import DepthMap, EdgeMap, Palette, Photo, render_pictures
from licht.world.scene import Character, Scene, Subject, Thing
from licht.world.tasks import TASK_KINDS, Task, TaskKind, sample_task
from licht.world.words import Split

COUNT = 10
TASKS = {kind: [sample_task(kind, 51, index) for index in range(COUNT)] for kind in TASK_KINDS}


def _look(subject: Subject) -> tuple[object, ...]:
    """What a reference fixes about a subject: all but its place."""
    if isinstance(subject, Thing):
        return (
            subject.shape,
            subject.color,
            subject.size,
            subject.material,
            subject.pattern,
            subject.second,
            subject.turn_deg,
        )
    return (
        subject.body,
        subject.body_color,
        subject.head_color,
        subject.hat,
        subject.hat_color,
        subject.facing,
        subject.arms,
    )


def _shown(task: Task, number: int) -> Scene:
    picture = task.references[number].picture
    assert isinstance(picture, Photo)
    return picture.scene


def test_the_same_arguments_give_the_same_task() -> None:
    assert sample_task("mixed", 51, 4) == TASKS["mixed"][4]
    assert sample_task("mixed", 52, 4) != TASKS["mixed"][4]


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="subjects"):
        sample_task("video", 0, 0)  # type: ignore[arg-type] # what is tested


@pytest.mark.parametrize("split", get_args(Split))
@pytest.mark.parametrize("kind", TASK_KINDS)
def test_instructions_mention_every_reference_and_no_other(kind: TaskKind, split: Split) -> None:
    """But one of several, where one is to be picked. Held-out phrasings have forms of their own."""
    for task in TASKS[kind] if split == "train" else [sample_task(kind, 51, at, split=split) for at in range(COUNT)]:
        assert is_clear(task.target)
        mentioned = list(task.sources) if kind == "pick" else list(range(len(task.references)))
        for text in task.instructions:
            assert sorted(image_mentions(text, 99)) == mentioned, text
            bare = re.sub(r'"[A-Z0-9]+"', "", text)
            assert bare == bare.lower()
            assert "{" not in text


@pytest.mark.parametrize("kind", TASK_KINDS)
def test_subjects_come_from_the_references_that_are_named(kind: TaskKind) -> None:
    for task in TASKS[kind]:
        assert len(task.sources) == len(task.target.subjects)
        for index, source in enumerate(task.sources):
            if source is None:
                continue
            assert task.references[source].role == "subject"
            assert [_look(each) for each in _shown(task, source).subjects] == [_look(task.target.subjects[index])]


def test_counts_of_references() -> None:
    many = [len(sample_task("many", 6, index).references) for index in range(40)]
    assert set(many) == set(range(5, 11))
    several = [len(sample_task("subjects", 6, index).references) for index in range(40)]
    assert set(several) == {2, 3, 4}


def test_one_of_several_references_is_picked_by_its_number() -> None:
    for task in TASKS["pick"]:
        assert len(task.target.subjects) == 1
        assert 2 <= len(task.references) <= 4
        looks = [_look(_shown(task, number).subjects[0]) for number in range(len(task.references))]
        assert len(set(looks)) == len(looks)
    assert {task.sources[0] for task in TASKS["pick"]} >= {0, 1, 2}


def test_swapping_references_swaps_the_subjects_and_keeps_the_words() -> None:
    for task in TASKS["subjects"]:
        swapped = task.swapped()
        assert swapped.instructions == task.instructions
        assert swapped.references[0] == task.references[1]
        assert swapped.references[1] == task.references[0]
        assert swapped.target.camera == task.target.camera
        assert is_clear(swapped.target)
        a, b = task.sources.index(0), task.sources.index(1)
        assert _look(swapped.target.subjects[a]) == _look(task.target.subjects[b])
        assert (swapped.target.subjects[a].x, swapped.target.subjects[a].z) == (
            task.target.subjects[a].x,
            task.target.subjects[a].z,
        )
        assert [_look(each) for each in _shown(swapped, 0).subjects] == [_look(swapped.target.subjects[a])]


def test_what_is_no_subject_cannot_be_swapped() -> None:
    with pytest.raises(InvalidRequest, match="cannot be swapped"):
        TASKS["palette"][0].swapped()
    with pytest.raises(InvalidRequest):
        TASKS["subjects"][0].swapped(0, 0)


def test_borrowed_floors_lights_and_letters_are_those_of_the_references() -> None:
    for kind in ("floor", "lighting", "lettering", "mixed"):
        for task in TASKS[kind]:
            for number, reference in enumerate(task.references):
                if reference.role == "background":
                    assert _shown(task, number).floor == task.target.floor
                if reference.role == "lighting":
                    assert _shown(task, number).light == task.target.light
                if reference.role == "style":
                    shown, wanted = _shown(task, number).lettering, task.target.lettering
                    assert shown is not None
                    assert wanted is not None
                    assert (shown.font, shown.size, shown.color) == (wanted.font, wanted.size, wanted.color)
                    assert shown.lines != wanted.lines


def test_palettes_give_the_colours_from_left_to_right() -> None:
    for task in TASKS["palette"]:
        picture = task.references[0].picture
        assert isinstance(picture, Palette)
        row = sorted((each for each in task.target.subjects if isinstance(each, Thing)), key=lambda each: each.x)
        assert picture.colors == tuple(each.color for each in row)
        for text in task.instructions:
            assert not any(color in text.split() for color in picture.colors)


@pytest.mark.parametrize(("kind", "sort"), [("depth", DepthMap), ("edges", EdgeMap)])
def test_maps_are_of_the_target(kind: TaskKind, sort: type[DepthMap] | type[EdgeMap]) -> None:
    for task in TASKS[kind]:
        assert task.references[0].picture == sort(task.target)


def test_held_out_pairs_are_in_no_training_reference() -> None:
    for tasks in TASKS.values():
        for task in tasks:
            pictures = [each.picture for each in task.references]
            scenes = [task.target, *(each.scene for each in pictures if isinstance(each, Photo))]
            assert not any(shows_held_out(subject) for scene in scenes for subject in scene.subjects)


def test_characters_are_borrowed_too() -> None:
    kept = [s for task in (*TASKS["subject"], *TASKS["subjects"]) for s in task.target.subjects]
    assert any(isinstance(each, Character) for each in kept)


def test_references_can_be_drawn() -> None:
    pictures = [each.picture for kind in TASK_KINDS for each in TASKS[kind][0].references]
    images = render_pictures(pictures, 64, 64)
    assert images.shape == (len(pictures), 64, 64, 3)
    assert all(len(image.reshape(-1, 3).unique(dim=0)) >= 1 for image in images)
    assert float(images.float().std((1, 2, 3)).median()) > 5


def test_instructions_fit_into_a_small_text_tower() -> None:
    lengths = [
        len(re.findall(r"[a-z]+|[A-Z0-9]|[^\sA-Za-z0-9]", text))
        for tasks in TASKS.values()
        for task in tasks
        for text in task.instructions
    ]
    assert max(lengths) < 96
