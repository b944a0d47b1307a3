"""The suite of references as a whole, and what it makes of pictures that are wrong in one thing."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from torch import Tensor

from licht.evaluation import suite_edits
from licht.evaluation.run import run_suite
from licht.evaluation.suites import Bench, Notebook, Report
from licht.world.pictures import render_pictures
from licht.world.scene import Scene, Thing
from licht.world.tasks import Task
from licht.world.vocabulary import COLORS
from tests.evaluation.oracle import Copyist, Oracle

pytestmark = pytest.mark.slow
N = 2
Change = Callable[[Scene], Scene]
Asked = tuple[str, list[Tensor], Scene]
"""Words, references, target."""


def all_tasks() -> list[Task]:
    """What the suite asks for, in its order and at its places."""
    many = suite_edits.tasks("subjects", N, 2)
    return [
        *suite_edits.tasks("subject", N, 1),
        *suite_edits.tasks("pick", N, 2),
        *many,
        *(task.swapped() for task in many),
        *suite_edits.tasks("many", N, 8),
        *suite_edits.tasks("depth", N, 1),
    ]


def asked(task: Task, at: int) -> Asked:
    side = 64 if len(task.references) > 4 else 128
    shown = render_pictures([each.picture for each in task.references], side, side)
    return task.instructions[at % len(task.instructions)], list(shown), task.target


@pytest.fixture(scope="module")
def told() -> list[Asked]:
    return [asked(task, at % N) for at, task in enumerate(all_tasks())]


def measured(told: Sequence[Asked], change: Change) -> Report:
    """Figures of a model that draws every target but for one change."""
    oracle = Oracle()
    for _, _, target in told:
        oracle.show(target)
    drawer = Copyist(oracle, [(text, references, change(target)) for text, references, target in told])
    bench = Bench(drawer, oracle, None, None, None, N, lambda done: None, Notebook())
    return run_suite("multiref", bench, "copyist")


ROWS = ("one_reference", "picked_reference", "many_references", "order_swap", "ten_references", "depth_follow")


def test_who_draws_every_target_has_perfect_figures(told: list[Asked]) -> None:
    report = measured(told, lambda scene: scene)
    for name in ROWS:
        assert report.rows[name].value == report.rows[f"{name}_ceiling"].value == 1.0, name
        assert report.rows[name].n == N
    assert len(report.shown) == len(ROWS) * N


def recolored(scene: Scene) -> Scene:
    first = scene.subjects[0]
    color = next(each for each in COLORS if each not in {getattr(first, "color", ""), getattr(first, "second", "")})
    other = (
        replace(first, color=color) if isinstance(first, Thing) else replace(first, body_color="green", body="pointed")
    )
    return scene.with_subject(0, other)


def without_the_last(scene: Scene) -> Scene:
    keep = scene.subjects[:-1]
    return replace(scene, subjects=keep)


def with_another(scene: Scene) -> Scene:
    """Once more what is there first: further back, from further away."""
    first = scene.subjects[0]
    again = replace(first, on=None, z=first.z - 2.0) if isinstance(first, Thing) else replace(first, z=first.z - 2.0)
    return replace(scene, subjects=(*scene.subjects[:9], again))


@pytest.mark.parametrize("change", [recolored, without_the_last])
def test_a_wrong_subject_fails_every_row(told: list[Asked], change: Change) -> None:
    report = measured(told, change)
    for name in ROWS:
        assert report.rows[name].value == 0.0, name
        assert report.rows[f"{name}_ceiling"].value == 1.0, name


def test_a_further_subject_fails_a_reference_and_a_map(told: list[Asked]) -> None:
    report = measured(told, with_another)
    assert report.rows["one_reference"].value == report.rows["depth_follow"].value == 0.0


def test_another_place_fails_a_map_and_not_a_reference(told: list[Asked]) -> None:
    report = measured(told, lambda scene: replace(scene, camera=replace(scene.camera, lift=scene.camera.lift + 0.25)))
    assert report.rows["depth_follow"].value == 0.0
    assert report.rows["one_reference"].value == report.rows["many_references"].value == 1.0
