"""Checkpoints and logs of runs that are killed in the worst moments."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from licht.core.errors import InvalidCheckpoint
from licht.training.ema import EMA
from licht.training.state import checkpoints, load_state, read_recipe, read_tensors, save_state, seconds_trained
from tests.training.toy import ToyModule, toy_recipe


def save(run: Path, step: int, value: float = 0.0) -> None:
    module = ToyModule()
    nn.init.constant_(module.outer.bias, value)
    save_state(run, step, module, EMA(module, 0.9), [], toy_recipe())


def load(run: Path) -> tuple[int, float]:
    module = ToyModule()
    step = load_state(run, module, EMA(module, 0.9), [], toy_recipe())
    return step, float(module.outer.bias.detach())


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_checkpoint_written_again_is_there_whenever_that_is_killed(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the old one goes aside, between the two renames, and while the old one is being removed."""
    save(tmp_path, 5, 1.0)
    calls: list[Path] = []
    rename, rmtree = Path.rename, shutil.rmtree

    def killed_rename(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == at:
            raise KeyboardInterrupt
        return rename(self, target)

    def killed_rmtree(path: Path, ignore_errors: bool = False) -> None:
        if (path / "state.safetensors").is_file():
            (path / "state.safetensors").unlink()
            raise KeyboardInterrupt
        rmtree(path, ignore_errors=ignore_errors)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed_rename)
        patched.setattr("shutil.rmtree", killed_rmtree)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 5, 2.0)
    assert load(tmp_path) == (5, 2.0 if at == 3 else 1.0)
    save(tmp_path, 6, 3.0)
    assert load(tmp_path) == (6, 3.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000005", "step-00000006"]


def test_an_old_checkpoint_that_is_being_removed_is_none_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        save(tmp_path, step)

    def killed(path: Path, ignore_errors: bool = False) -> None:
        if (path / "state.safetensors").is_file():
            (path / "state.safetensors").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 3)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000002", "step-00000003"]
    assert all(
        torch.isfinite(tensor).all() for tensor in read_tensors(tmp_path / "step-00000002/state.safetensors").values()
    )
    assert load(tmp_path)[0] == 3


def test_a_run_of_an_older_version_can_be_used(tmp_path: Path) -> None:
    save(tmp_path, 5)
    (checkpoint,) = checkpoints(tmp_path)
    path = checkpoint / "recipe.json"
    recipe = json.loads(path.read_text("utf-8"))
    recipe["flow"]["short_text"] = 48
    path.write_text(json.dumps(recipe), "utf-8")
    assert read_recipe(checkpoint) == toy_recipe()
    assert load(tmp_path)[0] == 5


@pytest.mark.parametrize("text", ["", "[]", '{"flow": 3}', '{"name": "x", "flow": {"nonsense": 1}}'])
def test_a_recipe_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    save(tmp_path, 5)
    (checkpoint,) = checkpoints(tmp_path)
    (checkpoint / "recipe.json").write_text(text, "utf-8")
    with pytest.raises(InvalidCheckpoint, match=r"has no usable recipe\.json"):
        read_recipe(checkpoint)


@pytest.mark.parametrize("content", ["{", "[1]", "3"])
def test_a_damaged_account_of_progress_is_refused(tmp_path: Path, content: str) -> None:
    save(tmp_path, 5)
    kept = tmp_path / "step-00000005"
    (kept / "progress.json").write_text(content)
    with pytest.raises(InvalidCheckpoint, match=r"progress\.json .*use another checkpoint"):
        seconds_trained(kept)


def test_weights_can_be_read_by_whoever_can_read_the_rest(tmp_path: Path) -> None:
    save(tmp_path, 5)
    weights = tmp_path / "step-00000005" / "state.safetensors"
    assert weights.stat().st_mode & 0o777 == weights.with_name("recipe.json").stat().st_mode & 0o777
