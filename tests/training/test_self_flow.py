from dataclasses import replace
from pathlib import Path

import torch

from licht.recipes.nano import nano_base
from licht.training.config import DataConfig, FlowLoss, Recipe
from licht.training.log import read_log
from licht.training.loop import Rank, train
from licht.training.objectives import interpolate, velocity_loss
from licht.training.self_flow import SelfFlowBatch
from licht.training.self_flow_task import SelfFlowTask
from licht.training.state import checkpoints, read_tensors
from licht.training.store import StreamStore
from licht.training.trained import open_networks
from tests.training.runs import TINY, alive
from tests.training.test_distil import ENCODER, STREAM, nothing, random_rows


def task_of(recipe: Recipe, folder: Path) -> SelfFlowTask:
    store = StreamStore(folder, STREAM, 32, TINY.text_length)
    store.fill(random_rows, 8, lambda name, done, total: None)
    return SelfFlowTask(recipe, [store], ENCODER, torch.device("cpu"), nothing)


def small(steps: int = 40) -> Recipe:
    base = nano_base()
    optim = replace(base.optim, steps=steps, batch=8, warmup_steps=2, autocast=False, ema=0.9)
    networks = replace(TINY, depth=2, depth_single=3)
    return replace(
        base,
        networks=networks,
        optim=optim,
        data=DataConfig(streams=(STREAM,)),
        flow=FlowLoss(self_flow=0.8),
        checkpoint_minutes=0.0,
    )


def test_the_alignment_is_learned_beside_the_velocity_and_left_behind(tmp_path: Path) -> None:
    recipe = small()
    task = task_of(recipe, tmp_path / "data")
    train(task, recipe, tmp_path / "run", 1, lambda report: None)
    logged = [line for line in read_log(tmp_path / "run") if "self_flow" in line]
    assert logged[-1]["self_flow"] < logged[0]["self_flow"]
    assert logged[-1]["velocity"] < logged[0]["velocity"]
    assert any(
        name.startswith("aligner.")
        for name in read_tensors(checkpoints(tmp_path / "run")[-1] / "state.safetensors", "ema/")
    )
    networks = open_networks(tmp_path / "run", recipe.networks)
    assert not any("aligner" in name for name in networks.state_dict())


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    recipe = small(6)
    train(task_of(recipe, tmp_path / "data"), recipe, tmp_path / "whole", 1, lambda report: None)
    assert sorted(path.name for path in checkpoints(tmp_path / "whole")) == ["step-00000005", "step-00000006"]
    whole = read_tensors(checkpoints(tmp_path / "whole")[-1] / "state.safetensors")
    checkpoints(tmp_path / "whole")[0].rename(tmp_path / "kept")
    (tmp_path / "parts").mkdir()
    (tmp_path / "kept").rename(tmp_path / "parts" / "step-00000005")
    train(task_of(recipe, tmp_path / "data"), recipe, tmp_path / "parts", 1, lambda report: None)
    parts = read_tensors(checkpoints(tmp_path / "parts")[-1] / "state.safetensors")
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())


def test_without_a_mask_the_velocity_term_is_the_plain_one(tmp_path: Path) -> None:
    task = task_of(small(), tmp_path)
    alive(task.networks, 4)
    task.follow({name: tensor.detach().clone() for name, tensor in task.module.state_dict().items()})
    batch = task.batch(0, Rank())
    bare = SelfFlowBatch(batch.rows, batch.second_B, torch.zeros_like(batch.masked_BL))
    rows = batch.rows
    with torch.no_grad():
        terms = task.module(bare)
        x, target = interpolate(rows.x0_BLC, rows.noise_BLC, rows.t_B)
        expected = velocity_loss(task.networks.velocity(rows, x, rows.t_B), target).mean()
        masked = task.module(batch)
    assert torch.allclose(terms["velocity"], expected, rtol=1e-5)
    assert not torch.allclose(masked["velocity"], expected, rtol=1e-5)
    assert 0 < float(terms["self_flow"]) < 1.6


def test_about_a_quarter_of_the_tokens_take_the_second_time(tmp_path: Path) -> None:
    task = task_of(small(), tmp_path)
    shares = [float(task.batch(step, Rank()).masked_BL.float().mean()) for step in range(40)]
    assert abs(sum(shares) / len(shares) - 0.25) < 0.03
