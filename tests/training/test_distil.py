from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from licht.core.errors import InvalidSettings
from licht.quant.swap import quantise, worth_quantising, worth_storing_small
from licht.recipes.nano import nano_dev, nano_klein
from licht.training.config import DataConfig, DistilConfig, Recipe, Source, Stream, Task
from licht.training.distil import DistilBatch, DistilTask, Student, Teacher, step_times
from licht.training.flow import FlowNetworks
from licht.training.loop import Rank, train
from licht.training.store import StreamStore
from licht.training.tokenizer import CaptionEncoder, train_tokenizer
from licht.training.trained import fill, open_networks
from tests.training.runs import CAPTIONS, TINY, alive, autoencoder_run, flow_run

STREAM = Stream(
    "edits", Source.EDIT, ("recolor",), 16, 1.0, size_px=(64, 64), references=1, reference_px=64, captions=1
)


def nothing(*arguments: object) -> dict[str, float]:
    return {}


def random_rows(stream: Stream, first: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(first)
    latents, references = generator.normal(size=(2, count, 16, 32)).astype(np.float16)
    return latents, references, ENCODER([CAPTIONS[row % 2] for row in range(count)])[0][:, None]


ENCODER = CaptionEncoder(train_tokenizer(CAPTIONS, TINY.vocab_size), TINY.text_length)


def task_of(recipe: Recipe, folder: Path, teacher: FlowNetworks, stream: Stream = STREAM) -> DistilTask:
    store = StreamStore(folder, stream, 32, TINY.text_length)
    store.fill(random_rows, 8, lambda name, done, total: None)
    task = DistilTask(recipe, [store], ENCODER, torch.device("cpu"), nothing, teacher)
    fill(task.networks, teacher)
    return task


def small(recipe: Recipe, steps: int = 60) -> Recipe:
    optim = replace(recipe.optim, steps=steps, batch=8, warmup_steps=2, autocast=False, adamw_lr=3e-3, muon_lr=3e-3)
    return replace(recipe, networks=TINY, optim=optim, data=DataConfig(streams=(STREAM,)))


@pytest.fixture
def teacher() -> FlowNetworks:
    networks = FlowNetworks(TINY)
    alive(networks, 5)
    return networks


def loss_of(task: DistilTask, batch: DistilBatch) -> float:
    with torch.no_grad():
        return float(sum(task.module(batch).values()))


def mean_loss(task: DistilTask) -> float:
    return sum(loss_of(task, task.batch(step, Rank())) for step in range(1000, 1012)) / 12


@pytest.mark.parametrize("recipe", [nano_dev(), nano_klein()], ids=lambda recipe: recipe.name)
def test_a_student_comes_closer_to_its_teacher_and_leaves_the_tower_alone(
    recipe: Recipe, teacher: FlowNetworks, tmp_path: Path
) -> None:
    settled = small(recipe)
    task = task_of(settled, tmp_path / "data", teacher)
    tower = {name: tensor.clone() for name, tensor in task.networks.tower.state_dict().items()}
    before = mean_loss(task)
    frozen = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    train(task, settled, tmp_path / "run", 1, lambda report: None)
    assert mean_loss(task) < 0.7 * before
    for name, tensor in task.networks.tower.state_dict().items():
        assert torch.equal(tensor, tower[name]), name
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, frozen[name]), name
    read = open_networks(tmp_path / "run", TINY)
    assert (read.transformer.guidance_in is not None) is (recipe.task is Task.GUIDANCE)


def test_a_guidance_student_begins_as_its_teachers_conditional_pass(teacher: FlowNetworks, tmp_path: Path) -> None:
    recipe = small(replace(nano_dev(), distil=DistilConfig(least_guidance=1.0, most_guidance=1.0)))
    task = task_of(recipe, tmp_path, teacher)
    assert loss_of(task, task.batch(0, Rank())) < 1e-9  # at scale 1 there is nothing to learn
    wide = task_of(small(nano_dev()), tmp_path, teacher)
    assert loss_of(wide, wide.batch(0, Rank())) > 1e-4


def test_a_step_student_equals_a_teacher_of_as_many_unguided_steps(teacher: FlowNetworks, tmp_path: Path) -> None:
    recipe = small(replace(nano_klein(), distil=DistilConfig(guidance=1.0, substeps=1)))
    task = task_of(recipe, tmp_path, teacher)
    assert all(loss_of(task, task.batch(step, Rank())) < 1e-9 for step in range(6))
    finer = task_of(small(replace(nano_klein(), distil=DistilConfig(guidance=1.0, substeps=3))), tmp_path, teacher)
    assert loss_of(finer, finer.batch(0, Rank())) > 1e-6


def test_a_step_student_imitates_where_the_teacher_arrives(teacher: FlowNetworks, tmp_path: Path) -> None:
    recipe = small(replace(nano_klein(), distil=DistilConfig(substeps=2, on_policy=0.0)))
    task = task_of(recipe, tmp_path, teacher)
    batch = next(batch for step in range(50) if (batch := task.batch(step, Rank())).start == 3)
    student = task.module
    assert isinstance(student, Student)
    with torch.no_grad():
        held = student._held[0]
        shown = held.shown(batch)
        begin, middle, end = step_times(16, 4, 2)[3]
        x = (1 - begin) * batch.rows.x0_BLC + begin * batch.rows.noise_BLC
        ones = torch.ones_like(batch.rows.t_B)
        half = x + (middle - begin) * held.velocity(batch.rows, shown, x, begin * ones, batch.guidance_B)
        last = half + (end - middle) * held.velocity(batch.rows, shown, half, middle * ones, batch.guidance_B)
        found = task.networks.velocity(batch.rows, x, begin * ones)
    expected = (found - (last - x) / (end - begin)).square().mean()
    assert end == 0.0
    assert loss_of(task, batch) == pytest.approx(float(expected), rel=1e-4)


def test_cut_captions_are_guided_against_an_empty_caption_of_their_length(
    teacher: FlowNetworks, tmp_path: Path
) -> None:
    flow = replace(nano_dev().flow, text_step=16, full_length=0.0)
    task = task_of(small(replace(nano_dev(), flow=flow)), tmp_path, teacher)
    batch = task.batch(0, Rank())
    assert batch.rows.ids_BT.shape[1] == batch.empty_1T.shape[1] == 16
    assert loss_of(task, batch) > 0


def test_references_can_be_followed_more_than_by_themselves(teacher: FlowNetworks, tmp_path: Path) -> None:
    """Three passes: nothing, the references alone, both (Brooks et al., 2023)."""
    recipe = small(replace(nano_klein(), distil=DistilConfig(reference_guidance=2.0)))
    task = task_of(recipe, tmp_path / "edits", teacher)
    assert task.batch(0, Rank()).reference_guidance == 1.0  # of an edit
    task = task_of(recipe, tmp_path / "tasks", teacher, replace(STREAM, source=Source.TASK, kinds=("subject",)))
    batch = task.batch(0, Rank())
    assert batch.reference_guidance == 2.0
    rows, ones = batch.rows, torch.ones_like(batch.rows.t_B)
    held = Teacher(teacher)
    shown, x = held.shown(batch), rows.noise_BLC
    plain = replace(shown, reference_guidance=1.0)
    with torch.no_grad():
        alone = replace(rows, references_BRC=None, reference_grids=())
        nothing = teacher.velocity_after(alone, shown.unconditional_BTD, x, ones)
        shown_only = teacher.velocity_after(rows, shown.unconditional_BTD, x, ones)
        both = teacher.velocity_after(rows, shown.conditional_BTD, x, ones)
        expected = nothing + 2.0 * (shown_only - nothing) + 3.0 * (both - shown_only)
        found = held.velocity(rows, shown, x, ones, batch.guidance_B)
        assert torch.allclose(found, expected, atol=1e-5)
        assert not torch.allclose(found, held.velocity(rows, plain, x, ones, batch.guidance_B), atol=1e-3)
        # without references there is nothing to follow
        assert torch.equal(
            held.velocity(alone, replace(shown, cache=None), x, ones, batch.guidance_B),
            held.velocity(alone, replace(plain, cache=None), x, ones, batch.guidance_B),
        )
    with pytest.raises(InvalidSettings, match="needs a teacher without embedded guidance"):
        task_of(recipe, tmp_path / "embeds", FlowNetworks(TINY, guidance_embed=True))


def test_two_ranks_take_the_rows_of_one(teacher: FlowNetworks, tmp_path: Path) -> None:
    task = task_of(small(nano_dev()), tmp_path, teacher)
    whole, parts = task.batch(3, Rank()), [task.batch(3, Rank(index, 2)) for index in range(2)]
    assert torch.equal(torch.stack([part.guidance_B for part in parts], 1).flatten(), whole.guidance_B)
    assert torch.equal(torch.stack([part.rows.x0_BLC for part in parts], 1).flatten(0, 1), whole.rows.x0_BLC)


def test_step_times_are_the_schedule_of_the_engine() -> None:
    from licht.sampling.schedule import sigmas

    times = step_times(64, 4, 3)
    assert [part[0] for part in times] + [times[-1][-1]] == pytest.approx(list(sigmas(64, 4)))
    assert all(len(part) == 4 for part in times)


def test_networks_come_from_runs_and_from_folders_alike(tmp_path: Path) -> None:
    from licht.training.export import Release, export_run

    autoencoder_run(tmp_path / "vae")
    flow_run(tmp_path / "base", tmp_path / "vae")
    export_run(tmp_path / "base", tmp_path / "folder", {}, Release())
    of_run, of_folder = (open_networks(tmp_path / name, TINY) for name in ("base", "folder"))
    for name, tensor in of_run.state_dict().items():
        assert torch.equal(of_folder.state_dict()[name], tensor.bfloat16().float()), name
    with pytest.raises(InvalidSettings, match="other networks than the recipe says"):
        open_networks(tmp_path / "base", replace(TINY, hidden_size=64))


def test_a_run_can_start_from_a_quantised_model(tmp_path: Path) -> None:
    from licht.training.export import Release, export_run

    autoencoder_run(tmp_path / "vae")
    flow_run(tmp_path / "base", tmp_path / "vae")
    export_run(tmp_path / "base", tmp_path / "folder", {}, Release(quant="int8", quant_outside="q4"))
    of_run, of_folder = (open_networks(tmp_path / name, TINY).state_dict() for name in ("base", "folder"))
    seen = set()
    for name, tensor in of_run.items():
        expected, layer = tensor.bfloat16(), name.removeprefix("transformer.").removesuffix(".weight")
        blocks, outside = (worth(layer, tuple(tensor.shape)) for worth in (worth_quantising, worth_storing_small))
        if name.startswith("transformer.") and (blocks or outside):
            form = "int8" if blocks else "q4"
            expected = quantise(expected, form, torch.float32).weight
            seen.add(form)
        assert torch.equal(of_folder[name], expected.float()), name
    assert seen == {"int8", "q4"}


def test_a_base_cannot_start_from_what_embeds_guidance(teacher: FlowNetworks) -> None:
    with pytest.raises(InvalidSettings, match="cannot start from some that embed their guidance"):
        fill(teacher, FlowNetworks(TINY, guidance_embed=True))


def test_recipes_of_the_family_share_their_data() -> None:
    assert nano_dev().data == nano_klein().data
    assert {nano_dev().task, nano_klein().task} == {Task.GUIDANCE, Task.STEPS}
