"""`licht train` from its command line: what it refuses, and several processes as torchrun starts them."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from licht.cli.main import run as command
from licht.recipes.nano import nano_smoke
from licht.training.config import DataConfig
from licht.training.log import read_log
from licht.training.state import checkpoints, read_tensors
from licht.training.tokenizer import save_tokenizer, train_tokenizer
from tests.training.runs import CAPTIONS, TINY, autoencoder_run, tiny_flow


def test_a_resume_with_another_recipe_is_refused_before_data_are_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = autoencoder_run(tmp_path / "run")
    (tmp_path / "recipe.json").write_text(recipe.as_json(), "utf-8")
    data = tmp_path / "data"
    data.mkdir()
    (data / "pictures.bin").write_bytes(b"hours of work")
    place = ["--run", str(tmp_path / "run"), "--data", str(data)]
    assert command(["train", str(tmp_path / "recipe.json"), *place, "--set", "data.pictures=288"]) == 2
    assert "data.pictures: 288 here, 64 there" in capsys.readouterr().err
    assert [path.name for path in data.iterdir()] == ["pictures.bin"]
    assert (data / "pictures.bin").read_bytes() == b"hours of work"


@pytest.mark.parametrize("option", ["--run", "--data"])
def test_a_file_in_the_place_of_a_folder_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    (tmp_path / "a").write_bytes(b"kept")
    place = {"--run": str(tmp_path / "run"), "--data": str(tmp_path / "data")} | {option: str(tmp_path / "a")}
    assert command(["train", "nano_smoke", *(part for pair in place.items() for part in pair)]) == 2
    assert f"{tmp_path / 'a'} is a file; name a folder for {option}" in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("minutes", ["nan", "-1", "inf"])
def test_minutes_are_a_number_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str], minutes: str) -> None:
    assert command(["train", "nano_smoke", "--run", str(tmp_path / "run"), "--minutes", minutes]) == 2
    assert "expected a number from 0" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_preparing_data_counts_among_the_minutes_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny_flow(tmp_path, steps=1)
    stream = replace(recipe.data.streams[0], rows=80)  # two chunks of rows
    (tmp_path / "recipe.json").write_text(replace(recipe, data=DataConfig(streams=(stream,))).as_json(), "utf-8")
    run = tmp_path / "run"
    save_tokenizer(train_tokenizer(CAPTIONS, TINY.vocab_size), run / "tokenizer")
    order = ["train", str(tmp_path / "recipe.json"), "--run", str(run)]
    assert command([*order, "--minutes", "0"]) == 0
    assert "data are prepared in part; call again to go on" in " ".join(capsys.readouterr().err.split())
    assert (run / "data" / "pictures" / "done").read_text() == "64"
    assert not checkpoints(run)
    assert command(order) == 0
    assert "step 1 of 1, loss" in " ".join(capsys.readouterr().err.split())
    # a run that has ended has no loss to tell
    assert command(order) == 0
    assert f"{run}: step 1 of 1\n" in capsys.readouterr().err


def _two_processes(recipe: Path, run: Path, minutes: int) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    train = ["-m", "--", "licht", "train", str(recipe), "--run", str(run), "--minutes", str(minutes)]
    return subprocess.run([*start, *train], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_two_processes_end_together_where_the_minutes_are_over(tmp_path: Path) -> None:
    recipe = tiny_flow(tmp_path, steps=1)
    stream = replace(recipe.data.streams[0], rows=200)
    (tmp_path / "recipe.json").write_text(replace(recipe, data=DataConfig(streams=(stream,))).as_json(), "utf-8")
    run = tmp_path / "run"
    save_tokenizer(train_tokenizer(CAPTIONS, TINY.vocab_size), run / "tokenizer")
    done = _two_processes(tmp_path / "recipe.json", run, minutes=0)
    assert done.returncode == 0, done.stderr
    assert "data are prepared in part; call again to go on" in " ".join(done.stderr.split())
    assert not checkpoints(run)


@pytest.mark.slow
def test_the_smallest_recipe_trains_with_what_is_shipped_and_its_loss_falls(tmp_path: Path) -> None:
    """The first command of the README, with fewer rows and steps."""
    recipe = nano_smoke()
    streams = tuple(replace(stream, rows=64) for stream in recipe.data.streams)
    recipe = replace(recipe, data=replace(recipe.data, streams=streams), optim=replace(recipe.optim, steps=61))
    (tmp_path / "recipe.json").write_text(recipe.as_json(), "utf-8")
    assert command(["train", str(tmp_path / "recipe.json"), "--run", str(tmp_path / "run")]) == 0
    losses = [line["loss"] for line in read_log(tmp_path / "run") if "loss" in line]
    assert len(losses) == 4
    assert losses[-1] < 0.7 * losses[0]
    assert (tmp_path / "run" / "sample-00000061.png").is_file()


@pytest.mark.slow
def test_two_processes_prepare_once_and_train(tmp_path: Path) -> None:
    """The first prepares the data while the other waits; weights are spread; one of them talks."""
    recipe = tiny_flow(tmp_path, steps=3)
    recipe = replace(recipe, optim=replace(recipe.optim, shard=True))
    (tmp_path / "recipe.json").write_text(recipe.as_json(), "utf-8")
    run = tmp_path / "run"
    save_tokenizer(train_tokenizer(CAPTIONS, TINY.vocab_size), run / "tokenizer")
    done = _two_processes(tmp_path / "recipe.json", run, minutes=9)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(run)]
    assert done.stderr.count(f"{run}: step 3 of 3") == 1
    assert (run / "step-00000003" / "state.safetensors").is_file()
    assert (run / "sample-00000003.png").is_file()
    assert [line["step"] for line in read_log(run) if "loss" in line] == [0]


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_as_if_it_never_was(tmp_path: Path) -> None:
    """SIGKILL between two steps, in the midst of a checkpoint or wherever it strikes; then the same command again."""
    recipe = replace(tiny_flow(tmp_path, steps=61), checkpoint_minutes=0.0)
    (tmp_path / "recipe.json").write_text(recipe.as_json(), "utf-8")
    licht = [sys.executable, "-m", "licht", "train", str(tmp_path / "recipe.json"), "--data", str(tmp_path / "data")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for run in (whole, parts):
        save_tokenizer(train_tokenizer(CAPTIONS, TINY.vocab_size), run / "tokenizer")
    subprocess.run([*licht, "--run", str(whole)], env=environment, capture_output=True, check=True)
    with subprocess.Popen([*licht, "--run", str(parts)], env=environment, stderr=subprocess.DEVNULL) as killed:
        while killed.poll() is None and not any(path.name >= "step-00000022" for path in checkpoints(parts)):
            time.sleep(0.002)
        killed.send_signal(signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert checkpoints(parts)[-1].name < "step-00000061"
    subprocess.run([*licht, "--run", str(parts)], env=environment, capture_output=True, check=True)
    assert read_log(parts) == read_log(whole)
    assert [line["step"] for line in read_log(parts) if "loss" in line] == [0, 20, 40, 60]
    expected, got = (read_tensors(run / "step-00000061" / "state.safetensors") for run in (whole, parts))
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
