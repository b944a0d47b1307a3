import math
import os
import socket
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from licht.core.errors import InvalidSettings, NotAvailable, OutputFailed
from licht.training.log import read_log
from licht.training.loop import Rank, Report, TrainingDiverged, refuse_uneven, refuse_unspreadable, train
from licht.training.optim import rate_factor
from licht.training.state import checkpoints, read_tensors
from licht.training.tensorboard import open_tensorboard
from tests.support.processes import PYTHONPATH
from tests.training.toy import ToyTask, toy_recipe


def quiet(report: Report) -> None:
    assert report.steps > 0


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_log(run) if "loss" in line]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(checkpoints(run)[-1] / "state.safetensors")


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    report = train(ToyTask(toy_recipe(400, checkpoint_minutes=9)), toy_recipe(400, 9), tmp_path, 1, quiet)
    logged = losses(tmp_path)
    assert report.step == 400
    assert sum(logged[-3:]) < 0.5 * sum(logged[:3])


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    recipe = toy_recipe()
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(ToyTask(recipe), recipe, whole, 1, quiet)
    with pytest.raises(KeyboardInterrupt):
        train(ToyTask(recipe, killed_at=5), recipe, parts, 1, quiet)
    assert checkpoints(parts)[-1].name == "step-00000005"
    train(ToyTask(recipe), recipe, parts, 1, quiet)
    expected, got = weights(whole), weights(parts)
    assert expected.keys() == got.keys()
    assert any(name.startswith("optimizer1/") for name in got), "Muon's state is missing"
    for name, tensor in expected.items():
        assert torch.equal(tensor, got[name]), name


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("fast", [False, True])
def test_bfloat16_is_computed_in_where_it_is_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: bool, autocast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": fast})
    recipe = toy_recipe(2)
    recipe = replace(recipe, optim=replace(recipe.optim, autocast=autocast))
    task, seen = ToyTask(recipe), set[torch.dtype]()
    task.module.get_submodule("inner").register_forward_hook(lambda _, __, made: seen.add(made.dtype))
    train(task, recipe, tmp_path, 1, quiet)
    assert seen == {torch.bfloat16 if fast and autocast else torch.float32}


def test_a_run_stops_at_its_minutes_and_keeps_its_state(tmp_path: Path) -> None:
    recipe = toy_recipe(100_000, checkpoint_minutes=9)
    report = train(ToyTask(recipe), recipe, tmp_path, 0.01, quiet)
    assert 0 < report.step < 100_000
    assert checkpoints(tmp_path)[-1].name == f"step-{report.step:08d}"


def test_sheets_are_drawn_by_the_time_trained_over_all_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes a minute, a call three steps, a sheet is due after five."""
    recipe = replace(toy_recipe(100, checkpoint_minutes=2), sample_minutes=4.5)
    now = [0.0]

    class Slow(ToyTask):
        def batch(self, step: int, rank: Rank) -> tuple[torch.Tensor, torch.Tensor]:
            now[0] += 60
            return super().batch(step, rank)

    monkeypatch.setattr("licht.training.loop.time.monotonic", lambda: now[0])
    for _ in range(4):
        train(Slow(recipe), recipe, tmp_path, 3, quiet)
        now[0] += 1000
    assert [line["step"] for line in read_log(tmp_path) if "sampled_at" in line] == [5, 10]


def test_a_resume_with_another_recipe_is_refused_with_the_difference(tmp_path: Path) -> None:
    train(ToyTask(toy_recipe()), toy_recipe(), tmp_path, 1, quiet)
    other = replace(toy_recipe(), optim=replace(toy_recipe().optim, clip=0.5))
    with pytest.raises(InvalidSettings, match=r"optim\.clip: 0\.5 here, 1\.0 there"):
        train(ToyTask(other), other, tmp_path, 1, quiet)


def test_each_step_is_logged_once_after_a_kill(tmp_path: Path) -> None:
    """The loss of step 40 is in the log, its checkpoint is not; then a line is cut short."""
    recipe = replace(toy_recipe(61, checkpoint_minutes=9), sample_minutes=9)
    train(ToyTask(replace(recipe)), recipe, tmp_path / "whole", 1, quiet)
    run = tmp_path / "parts"
    train(ToyTask(recipe), recipe, run, 0, quiet)
    with pytest.raises(KeyboardInterrupt):
        train(ToyTask(recipe, killed_at=45), recipe, run, 1, quiet)
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 60, "lo')
    assert [line["step"] for line in read_log(run)] == [0, 20, 40]
    train(ToyTask(recipe), recipe, run, 1, quiet)
    assert read_log(run) == read_log(tmp_path / "whole")
    train(ToyTask(recipe), recipe, run, 1, quiet)
    assert read_log(run) == read_log(tmp_path / "whole")


@pytest.mark.parametrize("full", ["log.jsonl", "sample-00000008.png"])
def test_no_room_for_log_or_sheet_is_one_clear_line(tmp_path: Path, full: str) -> None:
    (tmp_path / full).mkdir()

    class Drawing(ToyTask):
        def sample(self, path: Path, step: int) -> dict[str, float]:
            path.write_bytes(b"a sheet")
            return {}

    if full == "log.jsonl":
        with pytest.raises(OutputFailed, match=r"log\.jsonl cannot be written .*make room"):
            train(ToyTask(toy_recipe()), toy_recipe(), tmp_path, 1, quiet)
    else:
        with pytest.raises(OutputFailed, match=r"sample-00000008\.png cannot be written .*make room"):
            train(Drawing(toy_recipe()), toy_recipe(), tmp_path, 1, quiet)


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = toy_recipe()

    def full_after_three(path: Path, tensors: dict[str, torch.Tensor]) -> None:
        if path.parent.name.startswith(".step-00000004"):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr("licht.training.state.save_tensors", full_after_three)
    with pytest.raises(OutputFailed, match="No space left"):
        train(ToyTask(recipe), recipe, tmp_path, 1, quiet)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000002", "step-00000003"]
    assert not list(tmp_path.glob(".step-*"))
    assert weights(tmp_path)


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    train(ToyTask(toy_recipe()), toy_recipe(), tmp_path, 1, quiet)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000007", "step-00000008"]


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    recipe = toy_recipe()
    task = ToyTask(recipe)
    with torch.no_grad():
        task.module.get_parameter("outer.bias").fill_(math.nan)
    with pytest.raises(TrainingDiverged, match="step 0"):
        train(task, recipe, tmp_path, 1, quiet)


def test_rates_warm_up_and_fall_to_zero() -> None:
    config = replace(toy_recipe(100).optim, warmup_steps=10, decay_share=0.5)
    factors = [rate_factor(step, config) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[50] == 1.0
    assert factors[75] == pytest.approx(0.5)
    assert 0 < factors[99] <= 0.02


def test_rows_of_all_ranks_are_the_rows_of_one(tmp_path: Path) -> None:
    task = ToyTask(toy_recipe())
    whole, _ = task.batch(3, Rank())
    parts = [task.batch(3, Rank(index, 2))[0] for index in range(2)]
    assert torch.equal(torch.stack(parts, 1).flatten(0, 1), whole)


def test_processes_that_cannot_share_a_batch_evenly_are_refused() -> None:
    recipe = toy_recipe()
    refuse_uneven(recipe, Rank(0, recipe.optim.batch))
    with pytest.raises(InvalidSettings, match="expected a multiple of the 3 processes") as told:
        refuse_uneven(replace(recipe, optim=replace(recipe.optim, batch=8)), Rank(0, 3))
    assert told.value.field == "optim.batch"


def test_everything_logged_is_watched(tmp_path: Path) -> None:
    watched: list[tuple[int, dict[str, float]]] = []
    recipe = toy_recipe(41)
    train(ToyTask(recipe), recipe, tmp_path, 1, quiet, lambda step, figures: watched.append((step, figures)))
    assert watched == [(line.pop("step"), line) for line in read_log(tmp_path)]
    assert {step for step, _ in watched} >= {0, 20, 40, 41}


def test_tensorboard_is_asked_for_by_name_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(NotAvailable, match="pip install tensorboard"):
        open_tensorboard(tmp_path)


def test_tensorboard_gets_every_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str, flush_secs: int) -> None:
            assert folder == str(tmp_path / "tensorboard")
            assert flush_secs > 0

        def add_scalar(self, name: str, value: float, step: int) -> None:
            added.append((name, value, step))

        def flush(self) -> None:
            added.append(("flushed", 0.0, 0))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined] # a stand-in for the package
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    open_tensorboard(tmp_path)(5, {"loss": 1.5})
    assert added == [("loss", 1.5, 5), ("flushed", 0.0, 0)]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from licht.core.errors import OutputFailed
from licht.training.config import Source, Stream
from licht.training.pictures import PictureStore
from licht.training.store import StreamStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
run = Path(sys.argv[1])
for make in (
    lambda: PictureStore(run / "pictures.bin", 100, (64, 64)),
    lambda: StreamStore(run, Stream("s", Source.PICTURE, ("one",), 1000, 1.0), 128, 96),
):
    try:
        make()
    except OutputFailed as error:
        print(error.message)
from tests.training.toy import ToyTask, toy_recipe
from licht.training.loop import train
recipe = toy_recipe()
train(ToyTask(recipe, killed_at=None), recipe, run / "run", 1, lambda report: None)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 100_000))
longer = toy_recipe(9)
try:
    train(ToyTask(longer), longer, run / "other", 1, lambda report: None)
except OutputFailed as error:
    print(error.message)
"""


@pytest.mark.slow
def test_no_room_is_an_error_and_no_crash(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert "pictures.bin cannot be written" in first
    assert "cannot be written" in second
    assert "the checkpoint" in third
    assert "the last one is kept" in third
    assert not (tmp_path / "pictures.bin").exists()
    assert not list((tmp_path / "other").glob("*step-*"))
    assert weights(tmp_path / "run")


DEMOTE = """
import os, threading

def demote():
    '''All threads but the main one run only when nothing else wants to, as on a busy machine.'''
    threads = map(int, os.listdir("/proc/self/task")) if hasattr(os, "SCHED_IDLE") else ()
    for thread in threads:
        if thread != threading.main_thread().native_id:
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
"""
WORKER = (
    DEMOTE
    + """
import sys
from dataclasses import replace
from pathlib import Path
from tests.training.toy import ToyTask, toy_recipe
from licht.training.loop import train
recipe = toy_recipe()
recipe = replace(recipe, optim=replace(recipe.optim, shard=sys.argv[2] == "shard"))

class Task(ToyTask):
    def batch(self, step, rank):
        demote()
        return super().batch(step, rank)

try:
    train(Task(recipe, int(sys.argv[3])), recipe, Path(sys.argv[1]), 1, lambda report: None)
except KeyboardInterrupt:
    pass
"""
)


def two_processes(code: str, *arguments: str) -> None:
    """Run `code` in two processes that know each other as torchrun's would. Raises if one fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": PYTHONPATH},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for worker in workers:
            _, errors = worker.communicate(timeout=180)
            assert worker.returncode == 0, errors
    finally:
        for worker in workers:
            worker.kill()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["copy", "shard"])
def test_two_gloo_processes_equal_one(tmp_path: Path, way: str) -> None:
    """They stop half-way and go on; measured: 1e-7. Gloo's threads are slow, so none may be needed when Python ends."""
    recipe = toy_recipe()
    for killed_at in (4, recipe.optim.steps):
        two_processes(WORKER, str(tmp_path / "two"), way, str(killed_at))
    train(ToyTask(recipe), recipe, tmp_path / "one", 1, quiet)
    expected, got = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert set(expected) == set(got)
    worst = max(float((expected[name] - tensor).abs().max()) for name, tensor in got.items() if name.startswith("ema/"))
    assert worst < 1e-6
    assert losses(tmp_path / "two")[0] == pytest.approx(losses(tmp_path / "one")[0], abs=1e-5)


FLOW_WORKER = (
    DEMOTE
    + """
import os, sys
from dataclasses import replace
from pathlib import Path
import torch
from licht.training.flow import FlowBatch, FlowNetworks
from licht.training.loop import distributed
from licht.training.shard import shard, whole
from tests.training.runs import TINY, alive

def losses(networks, rows):
    generator = torch.Generator().manual_seed(3)
    x0, noise, references = torch.randn(3, 4, 4, 32, generator=generator)
    ids = torch.tensor([[1, 2, 3, 4]] * 4)
    batch = FlowBatch(
        x0[rows], noise[rows], torch.linspace(0.2, 0.8, 4)[rows], (2, 2), ids[rows], torch.ones_like(ids)[rows],
        references[rows], ((2, 2),),
    )
    loss = networks(batch)["velocity"]
    loss.backward()
    return loss

with distributed() as here:
    rank = here.index
    demote()
    plain, spread = FlowNetworks(replace(TINY, depth=2, depth_single=2)), FlowNetworks(replace(TINY, depth=2, depth_single=2))
    alive(plain, 5), alive(spread, 5)
    shard(spread, torch.device("cpu"), 2)
    losses(plain, slice(None))
    losses(spread, slice(rank, None, 2))
    held = sum(parameter.to_local().numel() for parameter in spread.parameters())
    total = sum(parameter.numel() for parameter in plain.parameters())
    assert held < 0.6 * total, (held, total)
    for (name, one), two in zip(plain.named_parameters(), spread.parameters(), strict=True):
        torch.testing.assert_close(whole(two.grad), one.grad, atol=1e-5, rtol=1e-4, msg=name)
"""
)


@pytest.mark.slow
def test_spread_networks_have_the_gradients_of_whole_ones() -> None:
    """Text, references that go their own way, and picture; each process holds about half of the weights."""
    two_processes(FLOW_WORKER)


def test_what_cannot_be_spread_is_refused(tmp_path: Path) -> None:
    recipe = toy_recipe()
    recipe = replace(recipe, optim=replace(recipe.optim, shard=True, compile=True))
    with pytest.raises(InvalidSettings, match=r"optim\.compile"):
        refuse_unspreadable(ToyTask(recipe), recipe)
