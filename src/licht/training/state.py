"""Checkpoints of a run: complete or absent, resumable to the bit, the last good one kept when the disk is full."""

import json
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from licht.checkpoint.save import save_tensors
from licht.core.errors import InvalidCheckpoint, InvalidSettings, OutputFailed
from licht.training.config import Recipe, difference, recipe_from_json
from licht.training.ema import EMA
from licht.training.shard import spread_like, whole

_STEP = re.compile(r"step-(\d{8})")
_FILES = ("state.safetensors", "recipe.json", "progress.json")
KEPT = 2
_RETIRED = (("flow", "short_text"),)
"""Fields that recipes had once; runs of that time can still be used."""


def save_state(
    run: Path,
    step: int,
    module: nn.Module,
    ema: EMA,
    optimizers: list[torch.optim.Optimizer],
    recipe: Recipe,
    seconds: float = 0.0,
    write: bool = True,
    sheet_seconds: float = 0.0,
    devices: Sequence[str] = (),
) -> Path:
    """Write everything needed to go on after `step` steps and `seconds` of training, `sheet_seconds` at the last sheet.

    `devices` are those that it was trained on, in words. Where tensors are spread over processes, all of them call, and
    only one is to `write`.
    Raises `OutputFailed`; older checkpoints survive that.
    """
    tensors = {f"model/{name}": tensor for name, tensor in module.state_dict().items()}
    tensors |= {f"ema/{name}": tensor for name, tensor in ema.tensors.items()}
    for number, optimizer in enumerate(optimizers):
        tensors |= {f"optimizer{number}/{key}": value for key, value in _optimizer_tensors(optimizer).items()}
    tensors = {name: whole(tensor.detach()).cpu().contiguous() for name, tensor in tensors.items()}
    final, partial = run / f"step-{step:08d}", run / f".step-{step:08d}.part"
    if not write:
        return final
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_tensors(partial / "state.safetensors", tensors)
        (partial / "recipe.json").write_text(recipe.as_json(), "utf-8")
        progress = {"step": step, "seconds": round(seconds, 1), "sheet_seconds": round(sheet_seconds, 1)}
        (partial / "progress.json").write_text(json.dumps({**progress, "devices": list(devices)}), "utf-8")
        _put_in_place(partial, final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OutputFailed(f"the checkpoint {final} cannot be written ({error}); the last one is kept") from error
    for old in checkpoints(run)[:-KEPT]:
        with suppress(OSError):
            old.rename(_aside(old))
    for left in (*run.glob(".step-*.old"), *run.glob(".step-*.part")):
        shutil.rmtree(left, ignore_errors=True)
    return final


def _put_in_place(partial: Path, final: Path) -> None:
    """Rename a complete checkpoint to its name; one that has it already goes aside, and comes back if this fails."""
    aside = _aside(final)
    shutil.rmtree(aside, ignore_errors=True)
    if final.exists():
        final.rename(aside)
    try:
        partial.rename(final)
    except OSError:
        bring_back(final.parent)
        raise


def _aside(checkpoint: Path) -> Path:
    """A name that is no checkpoint's: whatever is removed is first renamed to it, so that no half counts as one."""
    return checkpoint.with_name(f".{checkpoint.name}.old")


def bring_back(run: Path) -> None:
    """Undo what a kill may have left between two renames: the newest checkpoint gone aside, and none in its place."""
    found, kept = sorted(run.glob(".step-*.old")), checkpoints(run)
    if not found:
        return
    final = run / found[-1].name.removeprefix(".").removesuffix(".old")
    whole = all((found[-1] / name).is_file() for name in _FILES)
    if whole and (not kept or final.name > kept[-1].name):
        # of several processes the first does it
        with suppress(FileNotFoundError):
            found[-1].rename(final)


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return sorted(path for path in run.glob("step-*") if _STEP.fullmatch(path.name) and path.is_dir())


def load_state(run: Path, module: nn.Module, ema: EMA, optimizers: list[torch.optim.Optimizer], recipe: Recipe) -> int:
    """Go back to the newest checkpoint; returns the number of steps done, 0 if there is none.

    Raises `InvalidSettings` with the differences if the checkpoint belongs to another recipe.
    """
    bring_back(run)
    found = checkpoints(run)
    if not found:
        return 0
    newest = found[-1]
    refuse_other_recipe(run, recipe)
    tensors = read_tensors(newest / "state.safetensors")
    with torch.no_grad():
        ours = module.state_dict()
        module.load_state_dict(
            {name: spread_like(tensor, ours.get(name, tensor)) for name, tensor in _under(tensors, "model/").items()}
        )
        for name, tensor in _under(tensors, "ema/").items():
            ema.tensors[name].copy_(spread_like(tensor, ema.tensors[name]))
    for number, optimizer in enumerate(optimizers):
        _restore_optimizer(optimizer, _under(tensors, f"optimizer{number}/"))
    return step_of(newest)


def refuse_other_recipe(run: Path, recipe: Recipe) -> None:
    """Raises `InvalidSettings` with the differences if the newest checkpoint of `run` belongs to another recipe."""
    found = checkpoints(run)
    differing = difference(recipe.as_json(), read_recipe(found[-1]).as_json()) if found else []
    if differing:
        raise InvalidSettings(f"{run} was trained with another recipe: {'; '.join(differing[:5])}; use another folder")


def newest_checkpoint(run: Path) -> Path:
    """The newest complete checkpoint of a run. Raises `InvalidSettings` if there is none."""
    found = checkpoints(run)
    if not found:
        raise InvalidSettings(f"{run} holds no checkpoint; train there first")
    return found[-1]


def read_recipe(checkpoint: Path) -> Recipe:
    """The recipe of a checkpoint; fields that are newer than it are as usual. Raises `InvalidCheckpoint`."""
    try:
        data = json.loads((checkpoint / "recipe.json").read_text("utf-8"))
        for part, name in _RETIRED:
            data.get(part, {}).pop(name, None)
        return recipe_from_json(json.dumps(data))
    except (OSError, ValueError, AttributeError, InvalidSettings) as error:
        raise InvalidCheckpoint(f"{checkpoint} has no usable recipe.json ({error}); use another checkpoint") from error


def step_of(checkpoint: Path) -> int:
    """Steps done up to a checkpoint."""
    return int(checkpoint.name.removeprefix("step-"))


def seconds_trained(checkpoint: Path) -> float:
    """Wall-clock seconds of training up to a checkpoint, over all calls; 0 where that was not kept."""
    return float(_progress(checkpoint).get("seconds", 0.0))


def devices_of(checkpoint: Path) -> tuple[str, ...]:
    """The devices that a run was trained on up to a checkpoint, over all calls; empty where that was not kept."""
    return tuple(_progress(checkpoint).get("devices", ()))


def seconds_at_sheet(checkpoint: Path) -> float:
    """The same up to the last sheet; where that was not kept, as if one had been drawn with the checkpoint."""
    progress = _progress(checkpoint)
    return float(progress["sheet_seconds"]) if "sheet_seconds" in progress else seconds_trained(checkpoint)


def _progress(checkpoint: Path) -> dict[str, Any]:
    """How far a checkpoint is, by its own account; nothing where it has none. Raises `InvalidCheckpoint`."""
    path = checkpoint / "progress.json"
    try:
        progress = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise InvalidCheckpoint(f"{path} cannot be read ({error}); use another checkpoint") from error
    if not isinstance(progress, dict):
        raise InvalidCheckpoint(f"{path} does not tell how far the run is; use another checkpoint")
    return progress


def read_tensors(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """All tensors of a file whose names start with `prefix`, by the rest of the name."""
    try:
        with safe_open(path, framework="pt") as file:
            return {
                name.removeprefix(prefix): file.get_tensor(name)
                for name in list(file.keys())
                if name.startswith(prefix)
            }
    except (SafetensorError, OSError) as error:
        raise InvalidCheckpoint(f"{path} is not a complete checkpoint ({error})") from error


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of an optimiser as tensors named parameter number / key."""
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {f"{index}/{key}": torch.as_tensor(value) for index, entry in state.items() for key, value in entry.items()}


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = spread_like(tensor, trained[int(index)])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
