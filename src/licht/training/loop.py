"""The loop: deterministic steps, a time budget, checkpoints, logs. The same for every task.

Every step draws its batch and its noise from (seed, step) alone, so a run that was killed goes on exactly where its
last checkpoint stands, and processes that share a batch draw the same numbers as one process would.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, TypeVar, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from licht.core.errors import InvalidSettings, LichtError, OutputFailed
from licht.model.precision import multiplies_bfloat16
from licht.training.config import Recipe
from licht.training.ema import EMA
from licht.training.files import not_written
from licht.training.fuse import fuse_blocks
from licht.training.log import append_line, go_back_to
from licht.training.optim import build_optimizers, set_rates
from licht.training.rest import let_threads_rest
from licht.training.shard import shard, whole
from licht.training.state import (
    checkpoints,
    devices_of,
    load_state,
    save_state,
    seconds_at_sheet,
    seconds_trained,
)

T = TypeVar("T")
_REST_S = 10.0


@dataclass(frozen=True, slots=True)
class Rank:
    """This process among those that train together; it takes rows `index`, `index + count`, ... of each batch."""

    index: int = 0
    count: int = 1

    @property
    def rows(self) -> slice:
        """Its rows of a batch."""
        return slice(self.index, None, self.count)


class TrainingTask(Protocol):
    """What a task gives the loop: a module whose forward is the loss, and batches by step."""

    module: nn.Module
    """Called with a batch; returns named terms of the loss, each a scalar mean over the rows given."""

    def batch(self, step: int, rank: Rank) -> object:
        """This rank's rows of the batch of `step`, on the device; a function of recipe, step and rank alone."""
        ...

    def sample(self, path: Path, step: int) -> dict[str, float]:
        """Draw or measure with the current (averaged) weights; may write a sheet to `path`. Returns figures to log."""
        ...


@runtime_checkable
class FollowsAverage(Protocol):
    """A task that looks at the running average of its weights while it trains."""

    def follow(self, average: Mapping[str, Tensor]) -> None:
        """Called once with the averages by name; they go on changing in place."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """Where a run stands."""

    step: int
    steps: int
    loss: float
    pictures_per_s: float


class TrainingDiverged(LichtError):
    """The loss is not finite; the run goes no further from here."""

    code = "training_diverged"


Watch = Callable[[int, dict[str, float]], None]
"""(step, figures): called with all that is logged."""


def train(
    task: TrainingTask,
    recipe: Recipe,
    run: Path,
    minutes: float,
    on_report: Callable[[Report], None],
    watch: Watch | None = None,
) -> Report:
    """Train for at most `minutes` or until the recipe's last step; goes on from the newest checkpoint in `run`.

    Raises `InvalidSettings` if `run` belongs to another recipe or processes cannot share a batch evenly, `OutputFailed`
    if a checkpoint, the log or a sheet cannot be written, `TrainingDiverged` for a loss that is not finite.
    """
    with distributed() as rank:
        refuse_uneven(recipe, rank)
        return _Run(task, recipe, run, rank, on_report, watch).go(minutes)


class _Run:
    """One call of `train` in one process."""

    def __init__(
        self,
        task: TrainingTask,
        recipe: Recipe,
        run: Path,
        rank: Rank,
        on_report: Callable[[Report], None],
        watch: Watch | None,
    ) -> None:
        self.task, self.recipe, self.run, self.rank, self.on_report = task, recipe, run, rank, on_report
        self.watch = watch
        _make_folder(run)
        self.sharded = recipe.optim.shard and rank.count > 1
        if self.sharded:
            refuse_unspreadable(task, recipe)
            shard(task.module, next(task.module.parameters()).device, rank.count)
        self.optimizers = build_optimizers(task.module.named_parameters(), recipe.optim)
        self.ema = EMA(task.module, recipe.optim.ema)
        self.step = load_state(run, task.module, self.ema, self.optimizers, recipe)
        if not rank.index:
            go_back_to(run, self.step, finished=self.step >= recipe.optim.steps)
        if isinstance(task, FollowsAverage):
            task.follow(self.ema.tensors)
        self.before = seconds_trained(checkpoints(run)[-1]) if self.step else 0.0
        self.sheet_at = seconds_at_sheet(checkpoints(run)[-1]) if self.step else 0.0
        here = device_told(next(task.module.parameters()).device, rank)
        self.devices = tuple(dict.fromkeys((*(devices_of(checkpoints(run)[-1]) if self.step else ()), here)))
        self.begun = time.monotonic()
        forward = DistributedDataParallel(task.module) if rank.count > 1 and not self.sharded else task.module
        self.forward = forward
        if recipe.optim.compile:
            fuse_blocks(task.module)

    def go(self, minutes: float) -> Report:
        self.begun = begun = last_report = last_save = time.monotonic()
        total, since, loss = self.recipe.optim.steps, self.step, float("nan")
        while self.step < total and not self._agree(time.monotonic() - begun >= minutes * 60):
            loss = self._one_step(log=self.step % 20 == 0)
            now = time.monotonic()
            if now - last_report > 10:
                self._report(loss, (self.step - since) / (now - last_report))
                last_report, since = now, self.step
            if self._agree(now - last_save > self.recipe.checkpoint_minutes * 60):
                self._save()
                last_save = time.monotonic()
            if self._agree(self._seconds() - self.sheet_at > self.recipe.sample_minutes * 60):
                self._sample()
                self.sheet_at = self._seconds()
        self._save()
        if self.step >= total:
            self._sample()
        elapsed = max(time.monotonic() - last_report, 1e-9)
        return self._report(loss, (self.step - since) / elapsed)

    def _one_step(self, log: bool) -> float:
        config = self.recipe.optim
        factor = set_rates(self.optimizers, self.step, config)
        batch = self.task.batch(self.step, self.rank)
        device = next(self.task.module.parameters()).device
        with torch.autocast(device.type, torch.bfloat16, enabled=config.autocast and multiplies_bfloat16(device)):
            terms: dict[str, Tensor] = self.forward(batch)
        loss = torch.stack(list(terms.values())).sum()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = whole(nn.utils.clip_grad_norm_(self.task.module.parameters(), config.clip))
        value = self._mean(loss.detach())
        if not math.isfinite(value):
            raise TrainingDiverged(f"the loss is {value} at step {self.step}; lower the learning rate and resume")
        for optimizer in self.optimizers:
            optimizer.step()
        self.ema.update(self.task.module, self.step)
        if log:
            named = {name: round(self._mean(term.detach()), 6) for name, term in terms.items()}
            if self.rank.index == 0:
                self._log({"loss": value, **named, "grad_norm": float(norm), "rate": factor})
        self.step += 1
        return value

    def _save(self) -> None:
        first = self.rank.index == 0
        if first or self.sharded:
            rest = (self.recipe, self._seconds(), first, self.sheet_at, self.devices)
            save_state(self.run, self.step, self.task.module, self.ema, self.optimizers, *rest)

    def _seconds(self) -> float:
        """Seconds of training over all calls."""
        return self.before + time.monotonic() - self.begun

    def _sample(self) -> None:
        first = self.rank.index == 0
        if not first and not self.sharded:
            return
        self.ema.swap(self.task.module)
        try:
            with TemporaryDirectory() as scratch:
                # who holds only a part of the weights draws along, for nobody to see
                figures = self.task.sample((self.run if first else Path(scratch)) / self._sheet, self.step)
        except OSError as error:
            raise not_written(self.run / self._sheet, error) from error
        finally:
            self.ema.swap(self.task.module)
        if first and figures:
            self._log(figures)

    @property
    def _sheet(self) -> str:
        return f"sample-{self.step:08d}.png"

    def _log(self, figures: dict[str, float]) -> None:
        append_line(self.run, {"step": self.step, **figures})
        if self.watch is not None:
            self.watch(self.step, figures)

    def _report(self, loss: float, steps_per_s: float) -> Report:
        report = Report(self.step, self.recipe.optim.steps, loss, steps_per_s * self.recipe.optim.batch)
        if self.rank.index == 0:
            self.on_report(report)
        return report

    def _agree(self, here: bool) -> bool:
        """Whether any process says so: clocks differ, decisions must not."""
        return not all_have(self.rank, not here)

    def _mean(self, value: Tensor) -> float:
        if self.rank.count > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.rank.count
        return float(value)


def device_told(device: torch.device, rank: Rank) -> str:
    """What trains, in words: all processes together."""
    if device.type == "cuda":
        return f"{rank.count} x {torch.cuda.get_device_name(device)}"
    if device.type != "cpu":
        return device.type
    threads = rank.count * torch.get_num_threads()
    return "one CPU core" if threads == 1 else f"{threads} CPU cores"


def _make_folder(run: Path) -> None:
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputFailed(f"the run's folder {run} cannot be made ({error}); name another with --run") from error


def refuse_uneven(recipe: Recipe, rank: Rank) -> None:
    """Raises `InvalidSettings` for a batch that the processes cannot share evenly: its rows would weigh unequally."""
    if recipe.optim.batch % rank.count:
        raise InvalidSettings(
            f"optim.batch is {recipe.optim.batch}; expected a multiple of the {rank.count} processes that share it",
            field="optim.batch",
        )


def refuse_unspreadable(task: TrainingTask, recipe: Recipe) -> None:
    """Raises `InvalidSettings` for what needs whole weights while it trains."""
    if recipe.optim.compile or isinstance(task, FollowsAverage):
        what = "optim.compile" if recipe.optim.compile else "Self-Flow, which looks at the average of all weights"
        raise InvalidSettings(f"optim.shard does not go together with {what}; leave one of them out")


@contextmanager
def distributed() -> Iterator[Rank]:
    """Join the processes that torchrun started, if it did; inside of itself it joins nothing twice."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or dist.is_initialized():
        yield Rank() if count == 1 else Rank(dist.get_rank(), count)
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    # the others wait while the first prepares data
    dist.init_process_group(backend, timeout=timedelta(days=1))
    try:
        yield Rank(dist.get_rank(), count)
        dist.barrier()
    finally:
        let_threads_rest(_REST_S)
        dist.destroy_process_group()


def all_have(rank: Rank, here: bool) -> bool:
    """Whether every process says so."""
    if rank.count == 1:
        return here
    flag = torch.tensor(float(here))
    dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag.item())


def first_alone(rank: Rank, prepare: Callable[[], T]) -> T:
    """`prepare()` in the first process, then in all others, which find what it has written."""
    if rank.count > 1 and rank.index:
        dist.barrier()
    made = prepare()
    if rank.count > 1 and not rank.index:
        dist.barrier()
    return made
